package table

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const oldConfig = `<yandex>
 <logger><level>warning</level><console>1</console></logger>
 <http_port>%d</http_port><tcp_port>%d</tcp_port><listen_host>127.0.0.1</listen_host>
 <path>%[3]s/</path><tmp_path>%[3]s/tmp/</tmp_path><mark_cache_size>5368709120</mark_cache_size>
 <users_config>users.xml</users_config><default_profile>default</default_profile><default_database>default</default_database>
</yandex>`

const oldUsers = `<yandex>
 <profiles><default/></profiles><quotas><default/></quotas>
 <users><default><password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></default></users>
</yandex>`

// startOld starts Debian's clickhouse-server, 18.16, with a folder of its own.
func startOld(t *testing.T) (address string) {
	t.Helper()
	bin, err := exec.LookPath("clickhouse-server")
	if err != nil {
		t.Skip("no old server here: apt-get install clickhouse-server clickhouse-common")
	}
	dir, ports := t.TempDir(), [2]int{}
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
	}
	for name, text := range map[string]string{"config.xml": fmt.Sprintf(oldConfig, ports[0], ports[1], dir), "users.xml": oldUsers} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(bin, "--config-file="+filepath.Join(dir, "config.xml"))
	if err := cmd.Start(); err != nil {
		t.Skip("the old server does not start: ", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address = fmt.Sprintf("127.0.0.1:%d", ports[0])
	for deadline := time.Now().Add(20 * time.Second); ; {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatal("the old server does not listen within 20 s")
		}
		<-time.After(50 * time.Millisecond)
	}
}

// TestServerIsTooOld: the line says which version is there and which is needed,
// from setup and from its check alike.
func TestServerIsTooOld(t *testing.T) {
	s := Server{URL: "http://" + startOld(t)}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, migrate := Migrate(ctx, MigrateConfig{Server: s})
	_, check := Check(ctx, MigrateConfig{Server: s})
	for what, err := range map[string]error{"migrate": migrate, "check": check, "require": Require(ctx, MigrateConfig{Server: s})} {
		f := Diagnose(err)
		if f == nil || f.Reason != TooOld || !strings.Contains(f.Error(), "it is ClickHouse 18.16, and 24.8 or newer is needed") {
			t.Errorf("%s: %v", what, f)
		}
	}
	s.User, s.Password = "nobody", "hunter2secret"
	_, err := Migrate(ctx, MigrateConfig{Server: s})
	if f := Diagnose(err); f == nil || f.Reason != AuthFailed || strings.Contains(f.Error(), "hunter2") {
		t.Errorf("a user it does not know: %v", f)
	}
}
