package table

import (
	"strings"
	"testing"
)

func TestServerAddress(t *testing.T) {
	for url, ok := range map[string]bool{
		"http://127.0.0.1:8123": true, "https://user:word@ch.example": true, "http://localhost:1/clickhouse/": true,
		"127.0.0.1:8123": false, "tcp://h:9000": false, "http://": false, "http://user:pa ss@%": false,
	} {
		err := Server{URL: url}.Validate()
		if (err == nil) != ok {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "pa ss") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
	if (Server{URL: "http://h:1", Database: "a`b"}).Validate() == nil {
		t.Error("a quote in the database's name")
	}
}
