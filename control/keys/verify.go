package keys

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/spillway/spillway/schemas"
)

// Bounds of a token.
const (
	MaxToken    = 8 << 10 // bytes
	maxPatterns = 256     // of channels, and of publish
	maxSubject  = 256     // bytes of sub
	maxTried    = 8       // keys tried for a token without kid
)

// Leeway is how far clocks may differ: exp counts that much later, nbf earlier.
const Leeway = 5 * time.Second

// An Error says why a token is refused.
type Error struct {
	Reason  schemas.Reason // auth_required, auth_failed or token_expired
	Claim   string         // the claim that is missing or wrong, "" if it is not a claim
	Message string
}

// Error is the message; it names the claim.
func (e *Error) Error() string { return e.Message }

// Refused is reason and claim, for packages that know this one only by an
// interface.
func (e *Error) Refused() (reason schemas.Reason, claim string) { return e.Reason, e.Claim }

func refuse(claim, format string, args ...any) *Error {
	return &Error{Reason: schemas.AuthFailed, Claim: claim, Message: fmt.Sprintf(format, args...)}
}

// claims is the payload of a token. The pointers tell absent from empty.
type claims struct {
	Tenant    string           `json:"tenant"`
	Subject   string           `json:"sub,omitempty"`
	Role      string           `json:"role,omitempty"`
	Channels  []string         `json:"channels,omitempty"`
	Publish   []string         `json:"publish,omitempty"`
	ExpiresAt *jwt.NumericDate `json:"exp,omitempty"`
	NotBefore *jwt.NumericDate `json:"nbf,omitempty"`
	IssuedAt  *jwt.NumericDate `json:"iat,omitempty"`
}

// The methods of jwt.Claims; times are checked in times, audience and issuer
// mean nothing here.
func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return c.ExpiresAt, nil }
func (c *claims) GetNotBefore() (*jwt.NumericDate, error)      { return c.NotBefore, nil }
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error)       { return c.IssuedAt, nil }
func (c *claims) GetIssuer() (string, error)                   { return "", nil }
func (c *claims) GetSubject() (string, error)                  { return c.Subject, nil }
func (c *claims) GetAudience() (jwt.ClaimStrings, error)       { return nil, nil }

var parser = jwt.NewParser(jwt.WithStrictDecoding())

// Verify checks a token's signature, times and claims and returns what it says;
// its slices are shared, nobody may change them. The error is an *Error. A
// token verified before is looked up, which takes under a microsecond.
func (r *Ring) Verify(token string) (schemas.Claims, error) {
	s, now := r.set.Load(), r.cfg.Now()
	if len(token) > MaxToken || token == "" {
		return r.result(schemas.Claims{}, unreadable(token))
	}
	hash := hashToken(token)
	if c, ok := s.cache.get(hash); ok {
		if expired(c.ExpiresAt, now) {
			return r.result(schemas.Claims{}, errExpired(c.ExpiresAt))
		}
		r.metrics.cached.Inc()
		return c, nil
	}
	p, err := s.check(token, now)
	if err == nil {
		s.cache.put(hash, p.claims)
	} else if p.unknownKey {
		r.askFetch()
	}
	return r.result(p.claims, err)
}

func (r *Ring) result(c schemas.Claims, err *Error) (schemas.Claims, error) {
	if err != nil {
		r.metrics.verified.WithLabelValues(string(err.Reason)).Inc()
		return schemas.Claims{}, err
	}
	r.metrics.verified.WithLabelValues("ok").Inc()
	return c, nil
}

func unreadable(token string) *Error {
	if token == "" {
		return &Error{Reason: schemas.AuthRequired, Message: schemas.AuthRequired.Text()}
	}
	return refuse("", "the token has %d bytes, at most %d are read", len(token), MaxToken)
}

// parsed is what is known of a token; what was read before an error is there.
type parsed struct {
	claims     schemas.Claims
	key        Key
	keyID      string
	algorithm  string
	unknownKey bool
	issuedAt   time.Time
	notBefore  time.Time
}

// check is the whole verification, pure.
func (s *set) check(token string, now time.Time) (p parsed, refused *Error) {
	var c claims
	t, parts, err := parser.ParseUnverified(token, &c)
	if t != nil {
		p.algorithm, _ = t.Header["alg"].(string)
		p.keyID, _ = t.Header["kid"].(string)
		p.claims = c.vocabulary()
		p.issuedAt, p.notBefore = date(c.IssuedAt), date(c.NotBefore)
	}
	if err != nil {
		return p, parseError(err, p.algorithm)
	}
	if _, ok := t.Header["crit"]; ok { // RFC 7515 section 4.1.11: what is not understood must be refused
		return p, refuse("", "the token's header has crit, which is not supported")
	}
	signature, err := parser.DecodeSegment(parts[2])
	if err != nil {
		return p, refuse("", "the token's signature is not base64url")
	}
	signed := token[:len(parts[0])+1+len(parts[1])]
	if p.key, refused = s.find(&p, t.Method, signed, signature); refused != nil {
		return p, refused
	}
	if refused = c.times(now); refused != nil {
		return p, refused
	}
	return p, p.checkClaims()
}

// find returns the key that made the signature.
func (s *set) find(p *parsed, method jwt.SigningMethod, signed string, signature []byte) (Key, *Error) {
	candidates, refused := s.candidates(p)
	if refused != nil {
		return Key{}, refused
	}
	for _, k := range candidates {
		if method.Verify(signed, signature, k.public) != nil {
			continue
		}
		if k.Tenant != "" && k.Tenant != p.claims.Tenant {
			return Key{}, refuse("tenant", "claim tenant: key %q speaks for tenant %q only, not %q", k.ID, k.Tenant, p.claims.Tenant)
		}
		return k, nil
	}
	return Key{}, refuse("", "the token's signature is not by a key known here")
}

// candidates lists the keys that may have signed the token: those of its key
// id, else those of its algorithm; an algorithm never meets another's key.
func (s *set) candidates(p *parsed) ([]Key, *Error) {
	if p.keyID != "" {
		named := s.byID[p.keyID]
		if len(named) == 0 {
			p.unknownKey = true
			return nil, refuse("", "the token's key id %q is not known here", clip(p.keyID))
		}
		fit := forAlgorithm(named, p.algorithm)
		if len(fit) == 0 {
			return nil, refuse("", "the token's alg is %s, key %q is for %s", clip(p.algorithm), clip(p.keyID), named[0].Algorithm)
		}
		return fit, nil
	}
	var fit []Key
	for _, k := range forAlgorithm(s.all, p.algorithm) {
		if k.Tenant == "" || k.Tenant == p.claims.Tenant {
			fit = append(fit, k)
		}
	}
	switch {
	case len(fit) == 0:
		p.unknownKey = true
		return nil, refuse("", "no key for %s is known here", clip(p.algorithm))
	case len(fit) > maxTried:
		return nil, refuse("", "the token has no kid in its header, and %d keys could be meant", len(fit))
	}
	return fit, nil
}

func parseError(err error, algorithm string) *Error {
	if errors.Is(err, jwt.ErrTokenUnverifiable) {
		return refuse("", "the token's alg is %q, want HS256, RS256, ES256 or EdDSA", clip(algorithm))
	}
	var field *json.UnmarshalTypeError
	if errors.As(err, &field) && field.Field != "" {
		return refuse(field.Field, "claim %s: it must not be a %s", field.Field, field.Value)
	}
	return refuse("", "the token is not a JWT: want three base64url parts joined by dots")
}

func (c *claims) times(now time.Time) *Error {
	switch {
	case c.ExpiresAt == nil:
		return refuse("exp", "claim exp is missing: a token must say when it expires")
	case expired(c.ExpiresAt.Time, now):
		return errExpired(c.ExpiresAt.Time)
	case c.NotBefore != nil && now.Before(c.NotBefore.Add(-Leeway)):
		return refuse("nbf", "claim nbf: the token is not valid before %s", c.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

func expired(exp, now time.Time) bool { return !now.Before(exp.Add(Leeway)) }

func errExpired(exp time.Time) *Error {
	return &Error{Reason: schemas.TokenExpired, Claim: "exp", Message: "claim exp: the token expired at " + exp.UTC().Format(time.RFC3339)}
}

// vocabulary is c in the words of schemas, with the default role.
func (c *claims) vocabulary() schemas.Claims {
	out := schemas.Claims{
		Tenant: c.Tenant, Subject: c.Subject, Role: c.Role,
		Channels: c.Channels, Publish: c.Publish, ExpiresAt: date(c.ExpiresAt),
	}
	if out.Role == "" {
		out.Role = schemas.RoleClient
	}
	return out
}

func (p *parsed) checkClaims() *Error { return checkClaims(&p.claims) }

func checkClaims(c *schemas.Claims) *Error {
	switch c.Role {
	case schemas.RoleClient, schemas.RoleProducer, schemas.RoleOperator:
	default:
		return refuse("role", "claim role: %q is none of client, producer, operator", clip(c.Role))
	}
	switch {
	case c.Tenant == "":
		return refuse("tenant", "claim tenant is missing")
	case c.Role == schemas.RoleOperator && c.Tenant != schemas.Everyone:
		return refuse("tenant", `claim tenant: role operator needs tenant "*", not %q`, clip(c.Tenant))
	case c.Role != schemas.RoleOperator && !schemas.ValidTenant(c.Tenant):
		return refuse("tenant", "claim tenant: role %s needs 1 to 64 of A-Z a-z 0-9 . _ -, not %q", c.Role, clip(c.Tenant))
	case len(c.Subject) > maxSubject || !utf8.ValidString(c.Subject):
		return refuse("sub", "claim sub: want at most %d bytes of UTF-8", maxSubject)
	}
	if err := checkPatterns("channels", c.Channels); err != nil {
		return err
	}
	return checkPatterns("publish", c.Publish)
}

func checkPatterns(claim string, patterns []string) *Error {
	if len(patterns) > maxPatterns {
		return refuse(claim, "claim %s has %d patterns, at most %d", claim, len(patterns), maxPatterns)
	}
	for _, p := range patterns {
		if !schemas.ValidPattern(p) {
			return refuse(claim, "claim %s: %q is no channel, prefix.* or *", claim, clip(p))
		}
	}
	return nil
}

func date(d *jwt.NumericDate) time.Time {
	if d == nil {
		return time.Time{}
	}
	return d.Time
}

// clip keeps messages short and UTF-8 whatever the token holds.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return s
}
