package dev

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// Ports are the loopback ports of the embedded stack and its roles.
type Ports struct {
	Kafka, Registry, ClickHouse, Ingest, Fanout, Audit, Control, Admin int
}

// DefaultPorts are the ports that each part usually has.
func DefaultPorts() Ports {
	return Ports{Kafka: 9092, Registry: 8081, ClickHouse: 8123, Ingest: 8080, Fanout: 8090, Audit: 8060, Control: 8070, Admin: 8099}
}

// PortsFrom moves all ports above base, keeping their last two digits (and
// ClickHouse's last three): 18000 gives ingest 18080 and Kafka 18092. A base
// of 0 gives DefaultPorts.
func PortsFrom(base int) (Ports, error) {
	if base == 0 {
		return DefaultPorts(), nil
	}
	if base < 1024 || base > 65000 {
		return Ports{}, fmt.Errorf("--ports must be 1024 to 65000, got %d", base)
	}
	return Ports{
		Kafka: base + 92, Registry: base + 81, ClickHouse: base + 123, Ingest: base + 80,
		Fanout: base + 90, Audit: base + 60, Control: base + 70, Admin: base + 99,
	}, nil
}

// Address is the loopback address of a port.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Check opens and closes every port, so that a taken one is known before
// anything starts. The error names port, part and flag. withClickHouse is
// false when a server elsewhere is used.
func (p Ports) Check(withClickHouse bool) error {
	var taken []error
	for _, part := range []struct {
		name string
		port int
	}{
		{"Kafka", p.Kafka}, {"the schema registry", p.Registry}, {"ClickHouse", p.ClickHouse}, {"ingest", p.Ingest},
		{"fanout", p.Fanout}, {"audit", p.Audit}, {"control", p.Control}, {"the admin port", p.Admin},
	} {
		if part.port == p.ClickHouse && !withClickHouse {
			continue
		}
		l, err := net.Listen("tcp", Address(part.port))
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			taken = append(taken, fmt.Errorf("port %d (%s) is taken: stop what uses it, or move all ports with --ports 18000", part.port, part.name))
		case err != nil:
			taken = append(taken, fmt.Errorf("port %d (%s): %w", part.port, part.name, err))
		default:
			l.Close()
		}
	}
	return errors.Join(taken...)
}
