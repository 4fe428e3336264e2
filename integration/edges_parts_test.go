//go:build integration

package integration

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
	tcnetwork "github.com/testcontainers/testcontainers-go/network"
	"github.com/testcontainers/testcontainers-go/wait"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

// edges are parts that let nobody in who cannot say who he is:
//
//	Kafka       EDGE     SASL_SSL: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512
//	            MUTUAL   SSL, and clients need a certificate
//	            EXPIRED  SSL with a certificate of last year
//	registry    behind a proxy with TLS and basic authentication
//	ClickHouse  behind a proxy with TLS; its user is its own
//
// Kafka has an authorizer; who is not named in an ACL may do nothing.
type edges struct {
	*containersStack
	data, bin string
	ca        *signer
	kafka     map[string]string // address by listener
	admin     *kadm.Client      // a super user
}

// Words that must never be seen, and one who may do only a little.
const (
	kafkaSecret    = "kafka-secret-4711"
	registrySecret = "registry-secret-4711"
	limited        = "limited"
)

// edgeListeners are Kafka's, with their ports in the container.
var edgeListeners = []struct {
	name string
	port int
}{{"EDGE", 9092}, {"MUTUAL", 9094}, {"EXPIRED", 9095}}

func newEdges(t *testing.T) *edges {
	t.Helper()
	e := &edges{
		containersStack: &containersStack{parts: map[string]testcontainers.Container{}},
		data:            t.TempDir(), bin: builtBinary(t), ca: newSigner(t, "test CA"), kafka: map[string]string{},
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var err error
	if e.engine, err = docker(ctx); err != nil {
		absent(t, err)
	}
	undo(func() { _ = e.remove() })
	t.Cleanup(func() {
		if err := e.remove(); err != nil {
			t.Error(err)
		}
	})
	if e.network, err = tcnetwork.New(ctx, tcnetwork.WithLabels(labels())); err != nil {
		t.Fatal(err)
	}
	began := make(chan error, 3)
	go func() { began <- e.startSecureKafka(ctx, t) }()
	go func() { began <- e.startRegistry(ctx) }()
	go func() { began <- e.startClickHouse(ctx) }()
	for range 3 {
		if err := <-began; err != nil {
			absent(t, err)
		}
	}
	e.where.Kafka = e.kafka["EDGE"]
	e.where.Registry = e.front(t, e.where.Registry, "registry", registrySecret)
	e.where.ClickHouse = e.front(t, e.where.ClickHouse, "", "")
	if err := writeKeys(e.data); err != nil {
		t.Fatal(err)
	}
	e.users(ctx, t)
	return e
}

func (e *edges) startSecureKafka(ctx context.Context, t *testing.T) error {
	ports, err := freePorts(len(edgeListeners))
	if err != nil {
		return err
	}
	listeners, advertised := "INTERNAL://:19092,CONTROLLER://:9093", "INTERNAL://kafka:19092"
	bindings := network.PortMap{}
	var exposed []string
	for i, l := range edgeListeners {
		e.kafka[l.name] = local(ports[i])
		listeners += fmt.Sprintf(",%s://:%d", l.name, l.port)
		advertised += fmt.Sprintf(",%s://%s", l.name, e.kafka[l.name])
		inside, err := network.ParsePort(strconv.Itoa(l.port))
		if err != nil {
			return err
		}
		bindings[inside] = []network.PortBinding{{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: strconv.Itoa(ports[i])}}
		exposed = append(exposed, inside.String())
	}
	e.ca.server(t, "server.pem", time.Now().Add(24*time.Hour))
	e.ca.server(t, "expired.pem", time.Now().Add(-24*time.Hour))
	var files []testcontainers.ContainerFile
	for _, name := range []string{"ca.pem", "server.pem", "expired.pem"} {
		files = append(files, testcontainers.ContainerFile{HostFilePath: e.ca.file(name), ContainerFilePath: "/etc/edges-" + name, FileMode: 0o644})
	}
	env := map[string]string{
		"KAFKA_NODE_ID": "1", "CLUSTER_ID": "c3BpbGx3YXktdGVzdHM0MA", "KAFKA_PROCESS_ROLES": "broker,controller",
		"KAFKA_CONTROLLER_QUORUM_VOTERS": "1@kafka:9093", "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER", "KAFKA_INTER_BROKER_LISTENER_NAME": "INTERNAL",
		"KAFKA_LISTENERS": listeners, "KAFKA_ADVERTISED_LISTENERS": advertised,
		"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP":   "EDGE:SASL_SSL,MUTUAL:SSL,EXPIRED:SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1", "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "5",
		"KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1", "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1", "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "5",
		"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0", "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false", "KAFKA_HEAP_OPTS": "-Xms384m -Xmx384m",

		"KAFKA_AUTHORIZER_CLASS_NAME": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "KAFKA_SUPER_USERS": "User:admin;User:ANONYMOUS",
		"KAFKA_SASL_ENABLED_MECHANISMS": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		"KAFKA_LISTENER_NAME_EDGE_PLAIN_SASL_JAAS_CONFIG": fmt.Sprintf("org.apache.kafka.common.security.plain.PlainLoginModule required user_admin=%q user_spillway=%q user_%s=%q;",
			kafkaSecret, kafkaSecret, limited, kafkaSecret),
		"KAFKA_LISTENER_NAME_EDGE_SCRAM___SHA___256_SASL_JAAS_CONFIG": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
		"KAFKA_LISTENER_NAME_EDGE_SCRAM___SHA___512_SASL_JAAS_CONFIG": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
		"KAFKA_LISTENER_NAME_MUTUAL_SSL_CLIENT_AUTH":                  "required",
	}
	for listener, keystore := range map[string]string{"EDGE": "server.pem", "MUTUAL": "server.pem", "EXPIRED": "expired.pem"} {
		prefix := "KAFKA_LISTENER_NAME_" + listener + "_SSL_"
		env[prefix+"KEYSTORE_TYPE"], env[prefix+"KEYSTORE_LOCATION"] = "PEM", "/etc/edges-"+keystore
		env[prefix+"TRUSTSTORE_TYPE"], env[prefix+"TRUSTSTORE_LOCATION"] = "PEM", "/etc/edges-ca.pem"
	}
	return e.part(ctx, "kafka", kafkaImage(), 9092, ports[0], testcontainers.WithEnv(env), testcontainers.WithFiles(files...),
		testcontainers.WithExposedPorts(exposed...),
		testcontainers.WithHostConfigModifier(func(h *container.HostConfig) { h.PortBindings = bindings }),
		testcontainers.WithWaitStrategyAndDeadline(2*time.Minute, wait.ForLog("Kafka Server started")))
}

// users makes those whom Kafka knows, and what each may do.
func (e *edges) users(ctx context.Context, t *testing.T) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(e.kafka["EDGE"]), kgo.DialTLSConfig(&tls.Config{RootCAs: e.ca.pool()}),
		kgo.SASL(plain.Auth{User: "admin", Pass: kafkaSecret}.AsMechanism()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	e.admin = kadm.NewClient(client)
	for _, mechanism := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		made, err := e.admin.AlterUserSCRAMs(ctx, nil, []kadm.UpsertSCRAM{{User: "spillway", Mechanism: mechanism, Iterations: 4096, Password: kafkaSecret}})
		if err != nil || made.Error() != nil {
			t.Fatal(err, made.Error())
		}
	}
	all := []string{"User:spillway", "User:CN=spillway"}
	e.allow(ctx, t, kadm.NewACLs().Allow(all...).AllowHosts("*").ResourcePatternType(kmsg.ACLResourcePatternTypePrefixed).Topics("spillway.").
		Operations(kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationCreate, kmsg.ACLOperationDescribeConfigs))
	e.allow(ctx, t, kadm.NewACLs().Allow(all...).AllowHosts("*").ResourcePatternType(kmsg.ACLResourcePatternTypePrefixed).Groups("spillway.").
		Operations(kmsg.ACLOperationRead))
	e.allow(ctx, t, kadm.NewACLs().Allow(all...).AllowHosts("*").ResourcePatternType(kmsg.ACLResourcePatternTypePrefixed).TransactionalIDs("spillway.").
		Operations(kmsg.ACLOperationWrite))
	e.allow(ctx, t, kadm.NewACLs().Allow("User:"+limited).AllowHosts("*").ResourcePatternType(kmsg.ACLResourcePatternTypeLiteral).Topics("spillway.nodes").
		Operations(kmsg.ACLOperationRead))
}

func (e *edges) allow(ctx context.Context, t *testing.T, b *kadm.ACLBuilder) {
	t.Helper()
	made, err := e.admin.CreateACLs(ctx, b)
	if err != nil || len(made) == 0 {
		t.Fatal(made, err)
	}
	for _, r := range made {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
}

// front puts TLS, and basic authentication if there is a user, in front of a
// part, and returns the address to use instead.
func (e *edges) front(t *testing.T, part, user, password string) string {
	t.Helper()
	to, err := url.Parse(part)
	if err != nil {
		t.Fatal(err)
	}
	path := to.Path
	to.Path, to.User = "", nil
	proxy := httputil.NewSingleHostReverseProxy(to)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user != "" {
			u, p, _ := r.BasicAuth()
			if u != user || subtle.ConstantTimeCompare([]byte(p), []byte(password)) == 0 {
				http.Error(w, `{"error_code":401,"message":"Unauthorized"}`, http.StatusUnauthorized)
				return
			}
			r.Header.Del("Authorization")
		}
		proxy.ServeHTTP(w, r)
	}))
	file := e.ca.server(t, "front.pem", time.Now().Add(24*time.Hour))
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		t.Fatal(err)
	}
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug) // of clients that do not trust it
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL + path
}

// A signer makes certificates.
type signer struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newSigner(t *testing.T, name string) *signer {
	t.Helper()
	s := &signer{dir: t.TempDir()}
	var err error
	if s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	s.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		NotBefore: time.Now().Add(-365 * 24 * time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, s.cert, s.cert, &s.key.PublicKey, s.key)
	if err != nil {
		t.Fatal(err)
	}
	if s.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	s.write(t, "ca.pem", &pem.Block{Type: "CERTIFICATE", Bytes: der})
	return s
}

func (s *signer) file(name string) string { return filepath.Join(s.dir, name) }

func (s *signer) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(s.cert)
	return p
}

func (s *signer) write(t *testing.T, name string, blocks ...*pem.Block) string {
	t.Helper()
	var b strings.Builder
	for _, block := range blocks {
		if err := pem.Encode(&b, block); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.file(name), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return s.file(name)
}

// server writes a certificate for 127.0.0.1 with its key, in one file.
func (s *signer) server(t *testing.T, name string, until time.Time) string {
	t.Helper()
	return s.sign(t, name, until, &x509.Certificate{
		Subject: pkix.Name{CommonName: "kafka.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// client writes a certificate of a client with its key, in one file.
func (s *signer) client(t *testing.T, name, commonName string, until time.Time) string {
	t.Helper()
	return s.sign(t, name, until, &x509.Certificate{
		Subject: pkix.Name{CommonName: commonName}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

func (s *signer) sign(t *testing.T, name string, until time.Time, c *x509.Certificate) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-48*time.Hour), until
	der, err := x509.CreateCertificate(rand.Reader, c, s.cert, &key.PublicKey, s.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s.write(t, name, &pem.Block{Type: "PRIVATE KEY", Bytes: private}, &pem.Block{Type: "CERTIFICATE", Bytes: der})
}
