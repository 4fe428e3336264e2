package connect

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// Config says where the parts are and what they ask of us. A part that is not
// used stays empty.
type Config struct {
	Kafka      Kafka
	Registry   Web
	ClickHouse Web
	ClientID   string           // told to Kafka; "" is spillway
	Now        func() time.Time // what certificates are compared with; required
	Logger     *slog.Logger     // required
}

// Kafka says how to reach the brokers.
type Kafka struct {
	Brokers  []string // host:port; any of them will do to find the others
	TLS      bool     // off: the connection is in clear, and Files must be empty
	Files    Files
	SASL     string // none, plain, scram-sha-256 or scram-sha-512; "" is none
	User     string
	Password Secret
}

// Web says how to reach a part that speaks HTTP.
type Web struct {
	URLs     []string // http:// or https://; a user and a password in it count if User is empty
	Files    Files
	User     string // basic authentication; "" sends none
	Password Secret
}

// Files are PEM files.
type Files struct {
	CA   string // who signs the server's certificate; "": whom the system trusts
	Cert string // our own certificate, where the server asks for one; Key goes with it
	Key  string
}

func (f Files) empty() bool { return f == Files{} }

// A Secret is a word that nobody shall see.
type Secret struct {
	Text string
	File string // where it is kept; read again whenever it is used. Wins over Text
}

// read returns the secret as it is now.
func (s Secret) read() (string, error) {
	if s.File == "" {
		return s.Text, nil
	}
	text, err := os.ReadFile(s.File)
	return strings.TrimSpace(string(text)), err
}

// String keeps it out of what is printed by mistake.
func (s Secret) String() string { return "***" }

// GoString does so for %#v.
func (s Secret) GoString() string { return "***" }

// Mechanisms are the values of Kafka.SASL.
var Mechanisms = []string{"none", "plain", "scram-sha-256", "scram-sha-512"}

func (c *Config) validate() error {
	switch {
	case c.Now == nil || c.Logger == nil:
		return errors.New("connect: Now and Logger are required")
	case c.ClientID == "":
		c.ClientID = "spillway"
	}
	return errors.Join(c.Kafka.validate(), c.Registry.validate("registry"), c.ClickHouse.validate("clickhouse"))
}

func (k *Kafka) validate() error {
	if k.SASL == "" {
		k.SASL = "none"
	}
	password, err := k.Password.read()
	switch {
	case err != nil:
		return setting("--kafka-password", "%w", err)
	case !slices.Contains(Mechanisms, k.SASL):
		return setting("--kafka-sasl", "%q is none of %s", k.SASL, strings.Join(Mechanisms, ", "))
	case k.SASL == "none" && (k.User != "" || password != ""):
		return setting("--kafka-sasl", "--kafka-user or --kafka-password is given, but not how to show them: plain, scram-sha-256 or scram-sha-512?")
	case k.SASL != "none" && k.User == "":
		return setting("--kafka-user", "%s wants one", k.SASL)
	case k.SASL != "none" && password == "":
		return setting("--kafka-password", "%s wants one; SPILLWAY_KAFKA_PASSWORD or SPILLWAY_KAFKA_PASSWORD_FILE may hold it", k.SASL)
	case !k.TLS && !k.Files.empty():
		return setting("--kafka-tls", "is off, but --kafka-ca, --kafka-cert or --kafka-key is given")
	}
	return k.Files.validate("kafka")
}

func (f Files) validate(part string) error {
	switch {
	case f.Cert != "" && f.Key == "":
		return setting("--"+part+"-key", "--%s-cert goes with one", part)
	case f.Key != "" && f.Cert == "":
		return setting("--"+part+"-cert", "--%s-key goes with one", part)
	}
	return nil
}

func (w *Web) validate(part string) error {
	secure := false
	for _, text := range w.URLs {
		u, err := url.Parse(text)
		if err != nil {
			return setting("--"+part+"-url", "cannot be read as an address") // the error would quote a password
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
			return setting("--"+part+"-url", "%q: want http://host:port or https://host:port", u.Redacted())
		}
		secure = secure || u.Scheme == "https"
	}
	password, err := w.Password.read()
	switch {
	case err != nil:
		return setting("--"+part+"-password", "%w", err)
	case password != "" && w.User == "" && part == "registry":
		return setting("--"+part+"-user", "--%s-password goes with one", part)
	case !secure && !w.Files.empty():
		return setting("--"+part+"-url", "is not https://, but --%[1]s-ca, --%[1]s-cert or --%[1]s-key is given", part)
	}
	return w.Files.validate(part)
}

// credentials are the user and password to show at an address.
func (w *Web) credentials(u *url.URL) (user, password string, err error) {
	if password, err = w.Password.read(); err != nil {
		return "", "", err
	}
	user = w.User
	if user == "" && u.User != nil {
		user = u.User.Username()
	}
	if password == "" && u.User != nil {
		password, _ = u.User.Password()
	}
	return user, password, nil
}

// Refused means that a connection cannot work until a setting, or what stands
// behind it, changes: trying again is of no use. New, Check and Explain return
// it.
type Refused struct {
	Setting string // --kafka-ca
	err     error
	passes  bool // may also be a server that is just starting
}

// Error is one line: the setting and the cause.
func (r *Refused) Error() string { return r.Setting + ": " + r.err.Error() }

func (r *Refused) Unwrap() error { return r.err }

func setting(name, format string, args ...any) error {
	return &Refused{Setting: name, err: fmt.Errorf(format, args...)}
}

// passing is for what may be over in a moment.
func passing(name, format string, args ...any) error {
	return &Refused{Setting: name, err: fmt.Errorf(format, args...), passes: true}
}

// final reports whether trying again is of no use.
func final(err error) bool {
	var r *Refused
	return errors.As(err, &r) && !r.passes
}
