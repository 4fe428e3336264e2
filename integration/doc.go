// Package integration tests Spillway from outside: the built binary against
// real parts and real clients, and nothing internal. `make integration` builds
// the binary and runs it; the tests have the build tag integration.
package integration
