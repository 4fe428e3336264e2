package audit

import (
	"context"

	"github.com/spillway/spillway/processors/audit/table"
)

// The database is package table's; who wires the sink needs no other name.
type (
	Server        = table.Server
	Retention     = table.Retention
	MigrateConfig = table.MigrateConfig
)

// DefaultDatabase is the database's name unless configured otherwise.
const DefaultDatabase = table.DefaultDatabase

// Migrate makes or updates the tables, see table.Migrate.
func Migrate(ctx context.Context, cfg MigrateConfig) (applied []string, err error) {
	return table.Migrate(ctx, cfg)
}

// Check says what Migrate would change, see table.Check.
func Check(ctx context.Context, cfg MigrateConfig) (differs []string, err error) {
	return table.Check(ctx, cfg)
}
