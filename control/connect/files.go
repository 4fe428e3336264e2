package connect

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// material is what TLS to one part is made of. Its methods may be called from
// any goroutine.
type material struct {
	part  string // kafka, registry, clickhouse
	files Files
	now   func() time.Time
	log   *slog.Logger

	mu    sync.Mutex
	seen  [3]stamp
	roots *x509.CertPool // nil: whom the system trusts
	own   *tls.Certificate
	bad   error // why what is in the files now is not used
}

// stamp tells whether a file has changed.
type stamp struct {
	size     int64
	modified time.Time
}

func newMaterial(part string, files Files, now func() time.Time, log *slog.Logger) (*material, error) {
	m := &material{part: part, files: files, now: now, log: log}
	m.seen = m.stamps()
	return m, m.load()
}

func (m *material) stamps() (out [3]stamp) {
	for i, name := range []string{m.files.CA, m.files.Cert, m.files.Key} {
		if name == "" {
			continue
		}
		if info, err := os.Stat(name); err == nil {
			out[i] = stamp{info.Size(), info.ModTime()}
		}
	}
	return out
}

// load reads the files; what was read before stays if that is an error. Called
// under mu, or before anybody else knows m.
func (m *material) load() error {
	var roots *x509.CertPool
	if m.files.CA != "" {
		text, err := os.ReadFile(m.files.CA)
		if err != nil {
			return setting("--"+m.part+"-ca", "%w", err)
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(text) {
			return setting("--"+m.part+"-ca", "%s holds no certificate in PEM form", m.files.CA)
		}
	}
	own, err := m.loadOwn()
	if err != nil {
		return err
	}
	m.roots, m.own = roots, own
	return nil
}

func (m *material) loadOwn() (*tls.Certificate, error) {
	if m.files.Cert == "" {
		return nil, nil
	}
	cert, err := os.ReadFile(m.files.Cert)
	if err != nil {
		return nil, setting("--"+m.part+"-cert", "%w", err)
	}
	if block, _ := pem.Decode(cert); block == nil {
		return nil, setting("--"+m.part+"-cert", "%s holds no certificate in PEM form", m.files.Cert)
	}
	key, err := os.ReadFile(m.files.Key)
	if err != nil {
		return nil, setting("--"+m.part+"-key", "%w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, setting("--"+m.part+"-key", "%s does not go with %s: %w", m.files.Key, m.files.Cert, err)
	}
	if now := m.now(); now.After(pair.Leaf.NotAfter) || now.Before(pair.Leaf.NotBefore) {
		return nil, setting("--"+m.part+"-cert", "%s: our certificate %s %s", m.files.Cert, nameOf(pair.Leaf), outOfDate(pair.Leaf, now))
	}
	return &pair, nil
}

// fresh reads the files again if they have changed, or if force says so.
func (m *material) fresh(force bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.stamps()
	if now == m.seen && !force {
		return m.bad
	}
	m.seen = now
	m.bad = m.load()
	if m.bad != nil {
		m.log.Error("certificates are not read again, the old ones stay", "err", m.bad)
		return m.bad
	}
	m.log.Info("certificates are read again", "of", m.part)
	return nil
}

func (m *material) pool() *x509.CertPool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.roots
}

func (m *material) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.own, nil
}

// name is how a person knows our own certificate of this moment.
func (m *material) name() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return nameOf(m.own.Leaf)
}

// config is for connections to one host. Go's own check is replaced by the
// same one against the roots of this moment, for they may have been read again
// since.
func (m *material) config(host string) *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: host,
		InsecureSkipVerify: true, // see VerifyConnection
		VerifyConnection: func(state tls.ConnectionState) error {
			_ = m.fresh(false) // logged there
			return m.verify(host, state.PeerCertificates)
		},
	}
	if m.files.Cert != "" {
		c.GetClientCertificate = m.certificate
	}
	return c
}

func (m *material) verify(host string, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return &untrusted{m.part, host, errors.New("the server shows no certificate")}
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{DNSName: host, Roots: m.pool(), Intermediates: between, CurrentTime: m.now()})
	if err != nil {
		return &untrusted{m.part, host, err}
	}
	return nil
}

// untrusted is a server's certificate that does not convince.
type untrusted struct {
	part, host string
	err        error
}

func (u *untrusted) Error() string {
	return fmt.Sprintf("certificate of %s: %v", u.host, u.err)
}

func (u *untrusted) Unwrap() error { return u.err }

// nameOf is how a person knows a certificate.
func nameOf(c *x509.Certificate) string {
	if c.Subject.CommonName != "" {
		return fmt.Sprintf("%q", c.Subject.CommonName)
	}
	if len(c.DNSNames) > 0 {
		return fmt.Sprintf("for %q", c.DNSNames[0])
	}
	return "with serial number " + c.SerialNumber.String()
}

func outOfDate(c *x509.Certificate, now time.Time) string {
	if now.Before(c.NotBefore) {
		return "is good from " + c.NotBefore.UTC().Format(time.RFC3339) + " on only"
	}
	return "expired at " + c.NotAfter.UTC().Format(time.RFC3339)
}
