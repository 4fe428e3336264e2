package connect

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/sr"
)

// Explain returns err as a *Refused if it means that a setting is wrong, and
// err itself if it means anything else.
func (c *Connections) Explain(err error) error {
	if out := c.explain(err); final(out) {
		return out
	}
	return err
}

// explain is Explain; it also names the setting where a server may merely be
// restarting.
func (c *Connections) explain(err error) error {
	if err == nil {
		return nil
	}
	var refused *Refused
	if errors.As(err, &refused) {
		return refused
	}
	var cert *untrusted
	if errors.As(err, &cert) {
		return c.explainCertificate(cert)
	}
	for _, explain := range []func(error) error{c.explainKafka, c.explainTLS, c.explainHTTP} {
		if out := explain(err); out != nil {
			return out
		}
	}
	return err
}

// explainCertificate is about the certificate that a server showed.
func (c *Connections) explainCertificate(u *untrusted) error {
	var (
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		name    x509.HostnameError
		m       = map[string]*material{"kafka": c.kafka, "registry": c.registry, "clickhouse": c.clickhouse}[u.part]
		ca      = "--" + u.part + "-ca"
		address = map[string]string{"kafka": "--kafka-brokers"}[u.part]
	)
	if address == "" {
		address = "--" + u.part + "-url"
	}
	switch {
	case errors.As(u.err, &unknown) && m.files.CA == "":
		return setting(ca, "the certificate of %s is signed by none whom this system trusts: give the file of the one who signed it (%w)", u.host, u.err)
	case errors.As(u.err, &unknown):
		return setting(ca, "the certificate of %s is not signed by the one in %s (%w)", u.host, m.files.CA, u.err)
	case errors.As(u.err, &invalid) && invalid.Reason == x509.Expired:
		return setting(address, "the certificate %s that %s shows %s: renew it there", nameOf(invalid.Cert), u.host, outOfDate(invalid.Cert, m.now()))
	case errors.As(u.err, &name):
		return setting(address, "the certificate that %s shows is not for that name: %w", u.host, u.err)
	}
	return setting(ca, "the certificate of %s: %w", u.host, u.err)
}

// explainKafka is about what a broker answers.
func (c *Connections) explainKafka(err error) error {
	k := c.cfg.Kafka
	mechanism := strings.ToUpper(k.SASL)
	var away *turnedAway
	switch text := err.Error(); {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return setting("--kafka-user/--kafka-password", "Kafka refused %q with %s: wrong user or password (%w)", k.User, mechanism, kerr.SaslAuthenticationFailed)
	case errors.As(err, &away):
		return setting("--kafka-user/--kafka-password", "Kafka closed the connection when %q authenticated with %s: wrong user or password? (%w)", k.User, mechanism, away.err)
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return setting("--kafka-sasl", "this listener of Kafka does not offer %s (%w)", mechanism, kerr.UnsupportedSaslMechanism)
	case errors.Is(err, kerr.IllegalSaslState) && k.SASL == "none":
		return setting("--kafka-sasl", "this listener of Kafka wants plain, scram-sha-256 or scram-sha-512, and none is set (%w)", kerr.IllegalSaslState)
	case errors.Is(err, kerr.IllegalSaslState):
		return setting("--kafka-sasl", "is %s, but this listener of Kafka wants none (%w)", k.SASL, kerr.IllegalSaslState)
	case forbidden(err):
		return setting(c.who(), "Kafka does not allow it, an ACL is missing: %w", err)
	case strings.Contains(text, "tls alert record"):
		return setting("--kafka-tls", "is off, but this listener of Kafka speaks TLS")
	case strings.Contains(text, "is TLS missing?"):
		return passing("--kafka-tls", "is %s, and Kafka closed the connection at the first word: does this listener speak TLS? (EOF)", onOff(k.TLS))
	case strings.Contains(text, "is SASL missing?"):
		return passing("--kafka-sasl", "is %s, and Kafka closed the connection at the first request: does this listener want SASL? (EOF)", k.SASL)
	case strings.Contains(text, "is TLS misconfigured"):
		return passing("--kafka-tls", "is on, and Kafka closed the connection during the handshake: does this listener speak TLS? (EOF)")
	}
	return nil
}

// forbidden reports whether Kafka says that an ACL is missing.
func forbidden(err error) bool {
	for _, e := range []error{
		kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed,
		kerr.TransactionalIDAuthorizationFailed, kerr.ClusterAuthorizationFailed,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// who names the setting that says who we are to Kafka.
func (c *Connections) who() string {
	switch k := c.cfg.Kafka; {
	case k.SASL != "none":
		return "--kafka-user"
	case k.Files.Cert != "":
		return "--kafka-cert"
	}
	return "--kafka-sasl"
}

// principal is how Kafka's ACLs call us, as far as we know.
func (c *Connections) principal() string {
	switch k := c.cfg.Kafka; {
	case k.SASL != "none":
		return "User:" + k.User
	case k.Files.Cert != "":
		return "the user of our certificate " + c.kafka.name()
	}
	return "User:ANONYMOUS"
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// explainTLS is about handshakes that ended early. Which part they were with
// is known where only one is configured for TLS; else it is Kafka's, whose
// errors carry no address.
func (c *Connections) explainTLS(err error) error {
	part := "kafka"
	var asked *askedError
	if errors.As(err, &asked) {
		part = asked.part
	}
	var record tls.RecordHeaderError
	switch _, alert, ok := strings.Cut(err.Error(), "remote error: tls: "); {
	case errors.As(err, &record) && part == "kafka":
		return setting("--kafka-tls", "is on, but this listener of Kafka does not speak TLS")
	case errors.As(err, &record):
		return setting("--"+part+"-url", "is https://, but the server does not speak TLS")
	case ok:
		m := map[string]*material{"kafka": c.kafka, "registry": c.registry, "clickhouse": c.clickhouse}[part]
		if m.files.Cert == "" {
			return setting("--"+part+"-cert", "the server wants a certificate of ours, and none is given (it said: %s)", alert)
		}
		return setting("--"+part+"-cert", "the server refused our certificate in %s (it said: %s)", m.files.Cert, alert)
	}
	return nil
}

// askedError is an error of a request to a part that speaks HTTP.
type askedError struct {
	part string
	err  error
}

func (a *askedError) Error() string { return a.err.Error() }
func (a *askedError) Unwrap() error { return a.err }

// explainHTTP is about a status code that refuses us.
func (c *Connections) explainHTTP(err error) error {
	var answer *sr.ResponseError
	if errors.As(err, &answer) {
		return c.refusedBy("registry", answer.StatusCode, "")
	}
	if text := err.Error(); strings.Contains(text, "code: 516") || strings.Contains(text, "code: 194") || strings.Contains(text, "code: 497") {
		return c.refusedBy("clickhouse", http.StatusForbidden, text)
	}
	return nil
}

func (c *Connections) refusedBy(part string, status int, says string) error {
	name := map[string]string{"registry": "the schema registry", "clickhouse": "ClickHouse"}[part]
	user := map[string]string{"registry": c.cfg.Registry.User, "clickhouse": c.cfg.ClickHouse.User}[part]
	who := fmt.Sprintf("user %q", user)
	if user == "" {
		who = "us without a user"
	}
	if says != "" {
		says = ": " + says
	}
	if status != http.StatusUnauthorized && status != http.StatusForbidden {
		return nil
	}
	return setting("--"+part+"-user/--"+part+"-password", "%s refused %s (%d %s)%s", name, who, status, http.StatusText(status), says)
}
