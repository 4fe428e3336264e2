package keys

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/spillway/spillway/schemas"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func generated(t testing.TB, algorithm, id, tenant string) Key {
	t.Helper()
	k := Key{Algorithm: algorithm}
	var err error
	switch algorithm {
	case "RS256":
		var p *rsa.PrivateKey
		if p, err = rsa.GenerateKey(rand.Reader, minModulus); err == nil {
			err = k.setMaterial(p)
		}
	case "ES256":
		var p *ecdsa.PrivateKey
		if p, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err == nil {
			err = k.setMaterial(p)
		}
	default:
		k, err = Generate(rand.Reader, algorithm)
	}
	if err != nil {
		t.Fatal(err)
	}
	k.ID, k.Tenant = id, tenant
	return k
}

// ring returns a ring over a file of keys, whose clock is *clock.
func ring(t testing.TB, clock *time.Time, keys ...Key) *Ring {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := WriteFile(path, keys...); err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{File: path, Now: func() time.Time { return *clock }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSignedTokensVerifyWithEveryAlgorithm(t *testing.T) {
	for _, algorithm := range []string{"HS256", "RS256", "ES256", "EdDSA"} {
		clock := now
		r := ring(t, &clock, generated(t, algorithm, "k-"+algorithm, ""))
		want := schemas.Claims{
			Tenant: "acme", Subject: "ada", Role: schemas.RoleClient,
			Channels: []string{"jobs.*"}, Publish: []string{"chat.1"}, ExpiresAt: now.Add(time.Hour),
		}
		token, err := r.Sign(want)
		if err != nil {
			t.Fatal(algorithm, err)
		}
		for range 2 { // the second is from the cache
			got, err := r.Verify(token)
			if err != nil || got.Tenant != "acme" || got.Subject != "ada" || got.Role != "client" || !got.ExpiresAt.Equal(want.ExpiresAt) ||
				!got.MaySubscribe("jobs.7") || got.MaySubscribe("x") || !got.MayPublish("chat.1") || got.MayPublish("chat.2") {
				t.Fatalf("%s: %+v, %v", algorithm, got, err)
			}
		}
		if d := r.Describe(token); d.KeyID != "k-"+algorithm || d.Algorithm != algorithm || d.Refused != nil || !d.IssuedAt.Equal(now) {
			t.Errorf("%s: described as %+v", algorithm, d)
		}
	}
}

// token signs any payload and header with k.
func token(t testing.TB, k Key, header map[string]any, payload jwt.MapClaims) string {
	t.Helper()
	tok := jwt.NewWithClaims(jwt.GetSigningMethod(k.Algorithm), payload)
	if k.ID != "" {
		tok.Header["kid"] = k.ID
	}
	for name, v := range header {
		if v == nil {
			delete(tok.Header, name)
		} else {
			tok.Header[name] = v
		}
	}
	s, err := tok.SignedString(k.private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRefusals(t *testing.T) {
	ed, hs, rs := generated(t, "EdDSA", "ed", ""), generated(t, "HS256", "hs", ""), generated(t, "RS256", "rs", "")
	acme, other := generated(t, "EdDSA", "acme-1", "acme"), generated(t, "EdDSA", "ed", "")
	clock := now
	r := ring(t, &clock, ed, hs, rs, acme)
	exp := now.Add(time.Hour).Unix()
	with := func(change jwt.MapClaims) jwt.MapClaims {
		m := jwt.MapClaims{"tenant": "acme", "exp": exp}
		for name, v := range change {
			if v == nil {
				delete(m, name)
			} else {
				m[name] = v
			}
		}
		return m
	}
	ok := token(t, ed, nil, with(nil))
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	confused := Key{ID: "rs", Algorithm: "HS256", private: rs.public.(*rsa.PublicKey).N.Bytes()}

	for _, c := range []struct {
		name, token string
		reason      schemas.Reason
		claim, says string
	}{
		{"empty", "", schemas.AuthRequired, "", "required"},
		{"words", "hello", schemas.AuthFailed, "", "three base64url parts"},
		{"too long", ok + strings.Repeat("A", MaxToken), schemas.AuthFailed, "", "at most 8192"},
		{"four parts", ok + ".x", schemas.AuthFailed, "", "three"},
		{"no signature", ok[:strings.LastIndexByte(ok, '.')+1], schemas.AuthFailed, "", "not by a key"},
		{"changed payload", strings.Replace(ok, ".", "."+part(`{}`)[:1], 1), schemas.AuthFailed, "", ""},
		{"alg none", part(`{"alg":"none"}`) + "." + part(`{"tenant":"acme","exp":9999999999}`) + ".", schemas.AuthFailed, "", "no key for none"},
		{"alg none, kid", part(`{"alg":"none","kid":"ed"}`) + "." + part(`{"tenant":"acme","exp":9999999999}`) + ".", schemas.AuthFailed, "", `key "ed" is for EdDSA`},
		{"alg unknown", part(`{"alg":"X"}`) + "." + part(`{}`) + ".", schemas.AuthFailed, "", `alg is "X"`},
		{"public key as secret", token(t, confused, nil, with(nil)), schemas.AuthFailed, "", `key "rs" is for RS256`},
		{"public key as secret, no kid", token(t, confused, map[string]any{"kid": nil}, with(nil)), schemas.AuthFailed, "", "not by a key"},
		{"another's key", token(t, other, nil, with(nil)), schemas.AuthFailed, "", "not by a key"},
		{"unknown kid", token(t, ed, map[string]any{"kid": "zz"}, with(nil)), schemas.AuthFailed, "", `"zz" is not known`},
		{"crit", token(t, ed, map[string]any{"crit": []string{"b64"}}, with(nil)), schemas.AuthFailed, "", "crit"},
		{"no exp", token(t, ed, nil, with(jwt.MapClaims{"exp": nil})), schemas.AuthFailed, "exp", "missing"},
		{"exp text", token(t, ed, nil, with(jwt.MapClaims{"exp": "soon"})), schemas.AuthFailed, "", ""},
		{"expired", token(t, ed, nil, with(jwt.MapClaims{"exp": now.Unix() - 5})), schemas.TokenExpired, "exp", "expired at 2026-11-24T11:59:55Z"},
		{"not yet", token(t, ed, nil, with(jwt.MapClaims{"nbf": now.Unix() + 6})), schemas.AuthFailed, "nbf", "not valid before"},
		{"no tenant", token(t, ed, nil, with(jwt.MapClaims{"tenant": nil})), schemas.AuthFailed, "tenant", "missing"},
		{"tenant illegal", token(t, ed, nil, with(jwt.MapClaims{"tenant": "a/b"})), schemas.AuthFailed, "tenant", "claim tenant"},
		{"tenant number", token(t, ed, nil, with(jwt.MapClaims{"tenant": 7})), schemas.AuthFailed, "tenant", "must not be a number"},
		{"client of all", token(t, ed, nil, with(jwt.MapClaims{"tenant": "*"})), schemas.AuthFailed, "tenant", "role client"},
		{"operator of one", token(t, ed, nil, with(jwt.MapClaims{"role": "operator"})), schemas.AuthFailed, "tenant", "role operator"},
		{"role unknown", token(t, ed, nil, with(jwt.MapClaims{"role": "root"})), schemas.AuthFailed, "role", `"root"`},
		{"pattern illegal", token(t, ed, nil, with(jwt.MapClaims{"channels": []string{"a*b"}})), schemas.AuthFailed, "channels", `"a*b"`},
		{"publish illegal", token(t, ed, nil, with(jwt.MapClaims{"publish": []string{""}})), schemas.AuthFailed, "publish", "claim publish"},
		{"tenant's key for another", token(t, acme, nil, with(jwt.MapClaims{"tenant": "globex"})), schemas.AuthFailed, "tenant", `tenant "acme" only`},
		{"tenant's key for all", token(t, acme, nil, with(jwt.MapClaims{"tenant": "*", "role": "operator"})), schemas.AuthFailed, "tenant", `tenant "acme" only`},
		{"tenant's key for another, no kid", token(t, acme, map[string]any{"kid": nil}, with(jwt.MapClaims{"tenant": "globex"})), schemas.AuthFailed, "", "not by a key"},
	} {
		_, err := r.Verify(c.token)
		var e *Error
		if !errors.As(err, &e) || e.Reason != c.reason || e.Claim != c.claim || !strings.Contains(e.Message, c.says) {
			t.Errorf("%s: %#v", c.name, err)
		}
		if d := r.Describe(c.token); d.Refused == nil {
			t.Errorf("%s: described as valid", c.name)
		}
	}
	for name, good := range map[string]string{
		"plain": ok, "no kid": token(t, ed, map[string]any{"kid": nil}, with(nil)), "its tenant's key": token(t, acme, nil, with(nil)),
		"its tenant's key, no kid": token(t, acme, map[string]any{"kid": nil}, with(nil)),
		"operator":                 token(t, ed, nil, with(jwt.MapClaims{"tenant": "*", "role": "operator"})),
		"within leeway":            token(t, ed, nil, with(jwt.MapClaims{"exp": now.Unix() - 4, "nbf": now.Unix() + 5})),
	} {
		if _, err := r.Verify(good); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCachedTokenExpires(t *testing.T) {
	clock := now
	r := ring(t, &clock, generated(t, "HS256", "a", ""))
	tok, err := r.Sign(schemas.Claims{Tenant: "acme", ExpiresAt: now.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Verify(tok); err != nil {
		t.Fatal(err)
	}
	clock = now.Add(time.Minute + Leeway)
	var e *Error
	if _, err := r.Verify(tok); !errors.As(err, &e) || e.Reason != schemas.TokenExpired {
		t.Errorf("after its end: %v", err)
	}
}

func TestCacheIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	var c cache
	used := hashToken("used")
	c.put(used, schemas.Claims{Tenant: "acme"})
	for i := range 5 * maxCached {
		c.put(hashToken(string(rune(i))+"x"), schemas.Claims{})
		if _, ok := c.get(used); !ok {
			t.Fatalf("forgotten after %d others", i)
		}
	}
	if n := len(c.young) + len(c.old); n > 2*maxCached {
		t.Errorf("%d tokens kept", n)
	}
}

func TestReload(t *testing.T) {
	clock := now
	first, second := generated(t, "HS256", "a", ""), generated(t, "EdDSA", "b", "")
	r := ring(t, &clock, first)
	tok, err := r.Sign(schemas.Claims{Tenant: "acme", ExpiresAt: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Verify(tok); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.cfg.File, []byte(`{"keys":[`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Reload(); err == nil {
		t.Error("a broken file was taken")
	}
	if _, err := r.Verify(tok); err != nil {
		t.Errorf("the last good keys are gone: %v", err)
	}
	if err := WriteFile(r.cfg.File, second); err != nil {
		t.Fatal(err)
	}
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Verify(tok); err == nil {
		t.Error("a key that was taken out still counts")
	}
	if info, err := os.Stat(r.cfg.File); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := marshal([]Key{{ID: "weak", Algorithm: "RS256", public: &small.PublicKey}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":           ``,
		"no keys":         `{"keys":[]}`,
		"other kinds":     `{"keys":[{"kty":"EC","crv":"P-521","x":"AA","y":"AA"},{"kty":"oct","alg":"HS512","k":"AAAA"},{"kty":"RSA","use":"enc","n":"AA","e":"AQAB"}]}`,
		"short secret":    `{"keys":[{"kty":"oct","k":"c2hvcnQ"}]}`,
		"weak RSA":        string(weak),
		"point off curve": `{"keys":[{"kty":"EC","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"}]}`,
		"tenant illegal":  `{"keys":[{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE","tenant":"a b"}]}`,
	} {
		path := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if keys, err := ReadFile(path); err == nil {
			t.Errorf("%s: read as %+v", name, keys)
		}
	}
}

func TestSignRefusesWhatVerifyWould(t *testing.T) {
	clock := now
	r := ring(t, &clock, generated(t, "EdDSA", "a", "acme"))
	for name, c := range map[string]schemas.Claims{
		"no exp":         {Tenant: "acme"},
		"foreign tenant": {Tenant: "globex", ExpiresAt: now.Add(time.Hour)},
		"operator":       {Tenant: "acme", Role: schemas.RoleOperator, ExpiresAt: now.Add(time.Hour)},
	} {
		if tok, err := r.Sign(c); err == nil {
			t.Errorf("%s: signed as %s", name, tok)
		}
	}
}

func FuzzVerify(f *testing.F) {
	clock := now
	ed, hs := generated(f, "EdDSA", "ed", ""), generated(f, "HS256", "", "acme")
	r := ring(f, &clock, ed, hs)
	good := token(f, ed, nil, jwt.MapClaims{"tenant": "acme", "exp": now.Add(time.Hour).Unix()})
	f.Add(good)
	f.Add(token(f, hs, nil, jwt.MapClaims{"tenant": "acme", "exp": 1e300}))
	f.Add("a.b.c")
	f.Add("..")
	f.Fuzz(func(t *testing.T, tok string) {
		c, err := r.Verify(tok)
		d := r.Describe(tok)
		if (err == nil) != (d.Refused == nil) {
			t.Fatalf("verify says %v, describe %v", err, d.Refused)
		}
		if err == nil {
			if c.Tenant != "acme" || c.ExpiresAt.IsZero() {
				t.Fatalf("%+v", c)
			}
			return
		}
		var e *Error
		if !errors.As(err, &e) || e.Reason.Text() == "" || e.Message == "" || len(e.Message) > 1024 {
			t.Fatalf("%#v", err)
		}
	})
}

func BenchmarkVerifyCached(b *testing.B) {
	clock := now
	r := ring(b, &clock, generated(b, "EdDSA", "ed", ""))
	tok, err := r.Sign(schemas.Claims{Tenant: "acme", ExpiresAt: now.Add(time.Hour), Publish: []string{"a.*"}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Verify(tok); err != nil {
			b.Fatal(err)
		}
	}
}
