"""Gates, approvals, derived artifacts, golden checks, deletion, and the index of the manifests."""

import json

import sqlalchemy as sa
from alembic import op

from kovar.registry.index import index_version

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what gates, lineage, search and garbage collection need; index what is there."""
    for name, kind in (
        ("deleted_at", sa.String(27)),
        ("deleted_by", sa.Text()),
        ("delete_reason", sa.Text()),
    ):
        op.add_column("versions", sa.Column(name, kind))
    op.create_index(
        "ix_versions_model_id_deleted_at_number", "versions", ["model_id", "deleted_at", "number"]
    )
    op.create_index("ix_versions_deleted_at_id", "versions", ["deleted_at", "id"])
    op.drop_index("ix_tags_key_value", "tags")
    op.create_index("ix_tags_key_value_version_id", "tags", ["key", "value", "version_id"])
    action = sa.Column("action", sa.String(16), nullable=False, server_default="move")
    op.add_column("alias_history", action)
    op.add_column("alias_history", sa.Column("gates", sa.Text()))
    _create_gates()
    _create_derived()
    _create_index()
    _index_versions(op.get_bind())


def _create_gates() -> None:
    op.create_table(
        "gate_declarations",
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("alias", sa.String(128), nullable=False),
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("gates", sa.Text()),
        sa.Column("declared_at", sa.String(27), nullable=False),
        sa.Column("declared_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.PrimaryKeyConstraint("model_id", "alias", "sequence", name="pk_gate_declarations"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_gate_declarations_model_id"),
    )
    op.create_table(
        "approvals",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("alias", sa.String(128), nullable=False),
        sa.Column("approved_by", sa.String(256), nullable=False),
        sa.Column("approved_at", sa.String(27), nullable=False),
        sa.Column("comment", sa.Text()),
        sa.PrimaryKeyConstraint("version_id", "alias", "approved_by", name="pk_approvals"),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_approvals_version_id"),
    )


def _create_derived() -> None:
    op.create_table(
        "derived_artifacts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_derived_artifacts"),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name="fk_derived_artifacts_version_id"
        ),
        sa.UniqueConstraint("version_id", "digest", name="uq_derived_artifacts_version_id_digest"),
    )
    op.create_table(
        "golden_checks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("derived_id", sa.Integer()),
        sa.Column("runtime", sa.String(64), nullable=False),
        sa.Column("chip", sa.Text(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("difference", sa.Float()),
        sa.Column("tolerance", sa.Float(), nullable=False),
        sa.Column("checked_at", sa.String(27), nullable=False),
        sa.Column("checked_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_golden_checks"),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name="fk_golden_checks_version_id"
        ),
        sa.ForeignKeyConstraint(
            ["derived_id"], ["derived_artifacts.id"], name="fk_golden_checks_derived_id"
        ),
    )
    op.create_index("ix_golden_checks_derived_id", "golden_checks", ["derived_id"])
    op.create_index(
        "ix_golden_checks_version_id_runtime_id", "golden_checks", ["version_id", "runtime", "id"]
    )


def _create_index() -> None:
    _create_part(
        "parents",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("version_id", "digest", "role", name="pk_parents"),
    )
    _create_part(
        "version_metrics",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("dataset", sa.String(256), nullable=False),
        sa.Column("metric", sa.String(256), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("version_id", "dataset", "metric", name="pk_version_metrics"),
    )
    _create_part(
        "version_words",
        sa.Column("word", sa.String(64), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("word", "version_id", name="pk_version_words"),
    )
    _create_part(
        "blob_uses",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", "version_id", name="pk_blob_uses"),
    )
    op.create_index("ix_parents_digest_version_id", "parents", ["digest", "version_id"])
    op.create_index(
        "ix_version_metrics_dataset_metric_value_version_id",
        "version_metrics",
        ["dataset", "metric", "value", "version_id"],
    )


def _create_part(name: str, *parts: sa.schema.SchemaItem) -> None:
    owner = sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=f"fk_{name}_version_id")
    op.create_table(name, *parts, owner)


def _index_versions(connection: sa.Connection) -> None:
    tags: dict[int, dict[str, str]] = {}
    for version_id, key, value in connection.execute(
        sa.text("SELECT version_id, key, value FROM tags")
    ):
        tags.setdefault(version_id, {})[key] = value
    ids = connection.execute(sa.text("SELECT id FROM versions ORDER BY id")).scalars().all()
    # One at a time: manifests can be large.
    one = sa.text(
        "SELECT v.manifest, v.run, v.sweep, m.name FROM versions v "
        "JOIN models m ON m.id = v.model_id WHERE v.id = :id"
    )
    for version_id in ids:
        row = connection.execute(one, {"id": version_id}).one()
        index_version(
            connection,
            version_id,
            json.loads(row.manifest),
            model=row.name,
            run=row.run,
            sweep=row.sweep,
            tags=tags.get(version_id, {}),
        )
