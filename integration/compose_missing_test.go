//go:build integration

package integration

import "fmt"

func newCompose(string) (stack, error) { return nil, fmt.Errorf("compose: %w", errNoStack) }
