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

// Migrate makes or updates the tables, see table.Migrate. An error is one line
// for a person.
func Migrate(ctx context.Context, cfg MigrateConfig) (applied []string, err error) {
	if applied, err = table.Migrate(ctx, cfg); err != nil {
		return applied, table.Diagnose(err)
	}
	return applied, nil
}

// Check says what Migrate would change, see table.Check. An error is one line
// for a person.
func Check(ctx context.Context, cfg MigrateConfig) (differs []string, err error) {
	if differs, err = table.Check(ctx, cfg); err != nil {
		return nil, table.Diagnose(err)
	}
	return differs, nil
}
