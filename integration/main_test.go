//go:build integration

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The shared stack runs on the usual ports, because README and screen name
// them. Tests that restart or kill parts start their own.
var shared struct {
	*stack
	dir string
}

func sharedDev(t *testing.T) *stack {
	t.Helper()
	if shared.stack != nil && shared.cmd.ProcessState == nil {
		return shared.stack
	}
	t.Fatal("the shared dev is not running: TestDevIsReadyAndItsCommandsWork failed")
	return nil
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.stack != nil && shared.cmd.ProcessState == nil {
		_ = shared.cmd.Process.Kill() // a test failed before it was stopped
	}
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// TestShared runs everything that shares one stack, in order.
func TestShared(t *testing.T) {
	dir, err := os.MkdirTemp("", "spillway")
	if err != nil {
		t.Fatal(err)
	}
	shared.dir = dir
	shared.stack = startDev(t, filepath.Join(dir, "data"), 0)
	t.Logf("ready after %s", shared.ready)
	if shared.ready > 5*time.Second {
		t.Errorf("ready after %s, want 5 s at most", shared.ready)
	}
	t.Run("screen", testScreen)
	t.Run("kcat", testKcat)
	t.Run("kafkajs", testKafkaJS)
	t.Run("isolation", testIsolation)
	t.Run("badinput", testBadInput)
	t.Run("engine", func(t *testing.T) { sharedDev(t).engineReady(t) })
	t.Run("readme", testReadme)
	t.Run("story", testStory)
	t.Run("load", testLoad)
}

// commands are the lines a person is told to type: those that begin with "$ ".
var command = regexp.MustCompile(`(?m)^\s*\$ (.+)$`)

func testScreen(t *testing.T) {
	s := sharedDev(t)
	found := command.FindAllStringSubmatch(s.output(), -1)
	if len(found) < 3 {
		t.Fatalf("%d commands on the screen, want 3:\n%s", len(found), s.output())
	}
	for _, c := range found {
		s.shell(t, c[1])
	}
}

// shell runs a line as a person would who has just built the binary: in a
// folder that holds it.
func (s *stack) shell(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(s.bin, filepath.Join(dir, "spillway")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "timeout", "60", "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SPILLWAY_DATA="+s.data)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s\n%v\n%s", script, err, out)
	}
	t.Logf("$ %s\n%s", script, out)
	return string(out)
}

var shBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// testReadme runs every shell block of the README but the make targets, which
// are what runs this.
func testReadme(t *testing.T) {
	s := sharedDev(t)
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, block := range shBlock.FindAllStringSubmatch(string(text), -1) {
		if strings.HasPrefix(block[1], "make ") {
			continue
		}
		ran++
		s.shell(t, block[1])
	}
	if ran < 4 {
		t.Errorf("%d blocks of the README were run, want 4 at least", ran)
	}
}

func testKcat(t *testing.T) {
	if _, err := exec.LookPath("kcat"); err != nil {
		t.Fatal("kcat is not installed: apt-get install kcat")
	}
	s := sharedDev(t)
	out := s.shell(t, `
echo '{"text":"from kcat"}' > m.json
./spillway schemas encode demo.Message m.json > m.bin
kcat -P -b 127.0.0.1:9092 -t spillway.events -k globex m.bin
./spillway sub globex default --from begin --count 1 --output json`)
	if !strings.Contains(out, `"text":"from kcat"`) {
		t.Errorf("the event did not arrive:\n%s", out)
	}
}

// kafkaJS is a producer that is neither Go nor librdkafka: it registers its own
// schema and writes with its default partitioner.
const kafkaJS = `
const { Kafka, logLevel } = require('kafkajs')
const { SchemaRegistry, SchemaType } = require('@kafkajs/confluent-schema-registry')
;(async () => {
  const registry = new SchemaRegistry({ host: 'http://127.0.0.1:8081' })
  const { id } = await registry.register({ type: SchemaType.AVRO, schema: JSON.stringify({
    type: 'record', name: 'Note', namespace: 'interop', fields: [{ name: 'text', type: 'string' }, { name: 'n', type: 'long', default: 0 }],
  }) }, { subject: 'interop.Note', compatibility: 'FULL_TRANSITIVE' })
  const producer = new Kafka({ brokers: ['127.0.0.1:9092'], logLevel: logLevel.ERROR }).producer()
  await producer.connect()
  await producer.send({ topic: 'spillway.events', messages: [{ key: 'acme', value: await registry.encode(id, { text: 'from kafkajs', n: 7 }), headers: { ce_subject: 'interop.js', ce_id: 'js-1' } }] })
  await producer.disconnect()
})().catch(e => { console.error(e); process.exit(1) })
`

func testKafkaJS(t *testing.T) {
	s := sharedDev(t)
	dir := filepath.Join(shared.dir, "kafkajs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "p.js"), []byte(kafkaJS), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"npm", "install", "--no-audit", "--no-fund", "--silent", "kafkajs@2", "@kafkajs/confluent-schema-registry@3"}, {"node", "p.js"},
	} {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	out := s.run(t, "", "sub", "acme", "interop.js", "--from", "begin", "--count", "1", "--output", "json")
	for _, want := range []string{`"text":"from kafkajs"`, `"n":7`, `"id":"js-1"`, `"type":"interop.Note"`} {
		if !strings.Contains(out, want) {
			t.Errorf("%s is missing in %s", want, out)
		}
	}
}
