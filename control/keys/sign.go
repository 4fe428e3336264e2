package keys

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/spillway/spillway/schemas"
)

// Sign makes a token that says c, with the first key that has its private part
// and may speak for c.Tenant. It is an error if Verify would refuse c or if no
// such key is here.
func (r *Ring) Sign(c schemas.Claims) (string, error) {
	now := r.cfg.Now()
	if c.Role == "" {
		c.Role = schemas.RoleClient
	}
	if err := checkClaims(&c); err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	if expired(c.ExpiresAt, now) {
		return "", fmt.Errorf("sign: claim exp: %s is past", c.ExpiresAt.UTC().Format(time.RFC3339))
	}
	for _, k := range r.set.Load().all {
		if k.CanSign() && (k.Tenant == "" || k.Tenant == c.Tenant) {
			return k.sign(c, now)
		}
	}
	return "", errors.New("sign: no key here has its private part and may speak for tenant " + c.Tenant)
}

func (k Key) sign(c schemas.Claims, now time.Time) (string, error) {
	t := jwt.NewWithClaims(jwt.GetSigningMethod(k.Algorithm), &claims{
		Tenant: c.Tenant, Subject: c.Subject, Role: c.Role, Channels: c.Channels, Publish: c.Publish,
		ExpiresAt: jwt.NewNumericDate(c.ExpiresAt), IssuedAt: jwt.NewNumericDate(now),
	})
	if k.ID != "" {
		t.Header["kid"] = k.ID
	}
	token, err := t.SignedString(k.private)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	if len(token) > MaxToken {
		return "", fmt.Errorf("sign: the token would have %d bytes, at most %d are read", len(token), MaxToken)
	}
	return token, nil
}

// A Description is what a token says and whether it counts, for a person.
type Description struct {
	KeyID     string         // kid of the header, "" if none
	Algorithm string         // alg of the header
	KeyTenant string         // the tenant that its key speaks for; "" is all, or no key fits
	Claims    schemas.Claims // as written, with the default role
	IssuedAt  time.Time      // zero if absent
	NotBefore time.Time      // zero if absent
	Refused   *Error         // why Verify refuses it, nil if it is valid now
}

// Describe reads a token that need not be valid: what can be read is filled in.
// It is not for the hot path.
func (r *Ring) Describe(token string) Description {
	if token == "" || len(token) > MaxToken {
		return Description{Refused: unreadable(token)}
	}
	p, err := r.set.Load().check(token, r.cfg.Now())
	return Description{
		KeyID: p.keyID, Algorithm: p.algorithm, KeyTenant: p.key.Tenant,
		Claims: p.claims, IssuedAt: p.issuedAt, NotBefore: p.notBefore, Refused: err,
	}
}
