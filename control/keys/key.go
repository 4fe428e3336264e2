package keys

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/MicahParks/jwkset"

	"github.com/spillway/spillway/schemas"
)

// Least strengths: RFC 7518 section 3.2 (a key as long as the hash) and 3.3.
const (
	minSecret  = 32   // bytes, HS256
	minModulus = 2048 // bits, RS256
)

// A Key verifies tokens of one algorithm and, with its private part, signs
// them.
type Key struct {
	ID        string // kid; "" only matches tokens without one
	Algorithm string // HS256, RS256, ES256 or EdDSA
	Tenant    string // the tenant it speaks for; "" is all

	public  any // []byte, *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey
	private any // []byte, *rsa.PrivateKey, …; nil if the key only verifies
}

// CanSign reports whether the key has its private part.
func (k Key) CanSign() bool { return k.private != nil }

// jwk is a key as it is written: RFC 7517 and the member "tenant".
type jwk struct {
	jwkset.JWKMarshal
	Tenant string `json:"tenant,omitempty"`
}

var errOtherKind = errors.New("not a key for HS256, RS256, ES256 or EdDSA signatures")

// parse reads a JWKS of at most MaxSet bytes. Keys of other kinds are passed
// over; a key that is ours but broken, or no usable key at all, is an error.
func parse(r io.Reader) ([]Key, error) {
	raw, err := io.ReadAll(io.LimitReader(r, MaxSet+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > MaxSet {
		return nil, fmt.Errorf("key set exceeds %d bytes", MaxSet)
	}
	var doc struct {
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	if len(doc.Keys) > maxKeys {
		return nil, fmt.Errorf("key set has %d keys, at most %d", len(doc.Keys), maxKeys)
	}
	out := make([]Key, 0, len(doc.Keys))
	for i, j := range doc.Keys {
		k, err := j.key()
		if errors.Is(err, errOtherKind) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("keys[%d] (kid %q): %w", i, j.KID, err)
		}
		out = append(out, k)
	}
	if len(out) == 0 {
		return nil, errors.New(`key set: no key for HS256, RS256, ES256 or EdDSA; want {"keys":[…]} (RFC 7517)`)
	}
	return out, nil
}

func (j jwk) key() (Key, error) {
	if j.USE != "" && j.USE != jwkset.UseSig {
		return Key{}, errOtherKind
	}
	if j.Tenant != "" && !schemas.ValidTenant(j.Tenant) {
		return Key{}, fmt.Errorf("tenant %q: want 1 to 64 of A-Z a-z 0-9 . _ -", j.Tenant)
	}
	k := Key{ID: j.KID, Tenant: j.Tenant, Algorithm: j.algorithm()}
	if k.Algorithm == "" || j.ALG != "" && string(j.ALG) != k.Algorithm {
		return Key{}, errOtherKind
	}
	m := j.JWKMarshal // certificates say nothing here, and x5u would be fetched
	m.X5U, m.X5C, m.X5T, m.X5TS256, m.KEYOPS = "", nil, "", "", nil
	parsed, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{Private: true}, jwkset.JWKValidateOptions{})
	if err != nil {
		return Key{}, err
	}
	return k, k.setMaterial(parsed.Key())
}

// algorithm is the one algorithm that a key of this kind is for, "" if none.
func (j jwk) algorithm() string {
	switch {
	case j.KTY == jwkset.KtyOct:
		return "HS256"
	case j.KTY == jwkset.KtyRSA:
		return "RS256"
	case j.KTY == jwkset.KtyEC && j.CRV == jwkset.CrvP256:
		return "ES256"
	case j.KTY == jwkset.KtyOKP && j.CRV == jwkset.CrvEd25519:
		return "EdDSA"
	}
	return ""
}

func (k *Key) setMaterial(material any) error {
	switch m := material.(type) {
	case []byte:
		if len(m) < minSecret {
			return fmt.Errorf("secret of %d bytes, want %d or more", len(m), minSecret)
		}
		k.public, k.private = m, m
	case *rsa.PrivateKey:
		k.public, k.private = &m.PublicKey, m
	case *rsa.PublicKey:
		k.public = m
	case *ecdsa.PrivateKey:
		k.public, k.private = &m.PublicKey, m
	case *ecdsa.PublicKey:
		k.public = m
	case ed25519.PrivateKey:
		k.public, k.private = m.Public(), m
	case ed25519.PublicKey:
		k.public = m
	default:
		return errOtherKind
	}
	if p, ok := k.public.(*rsa.PublicKey); ok && p.N.BitLen() < minModulus {
		return fmt.Errorf("modulus of %d bits, want %d or more", p.N.BitLen(), minModulus)
	}
	return nil
}

// Generate makes a key for algorithm EdDSA or HS256 with a random id, for a
// first start. random is a source such as crypto/rand.Reader.
func Generate(random io.Reader, algorithm string) (Key, error) {
	var seed [32]byte
	var id [8]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return Key{}, fmt.Errorf("generate key: %w", err)
	}
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return Key{}, fmt.Errorf("generate key: %w", err)
	}
	k := Key{ID: hex.EncodeToString(id[:]), Algorithm: algorithm}
	switch algorithm {
	case "EdDSA":
		return k, k.setMaterial(ed25519.NewKeyFromSeed(seed[:]))
	case "HS256":
		return k, k.setMaterial(seed[:])
	}
	return Key{}, fmt.Errorf("generate key: algorithm %q, want EdDSA or HS256", algorithm)
}

// WriteFile writes a JWKS with the private parts, readable by its owner alone
// (0600). It replaces path whole or not at all.
func WriteFile(path string, keys ...Key) error {
	raw, err := marshal(keys)
	if err != nil {
		return fmt.Errorf("write keys: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".keys-*") // 0600 from the start
	if err != nil {
		return fmt.Errorf("write keys: %w", err)
	}
	_, err = f.Write(raw)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write keys: %w", err)
	}
	return nil
}

func marshal(keys []Key) ([]byte, error) {
	var doc struct {
		Keys []jwk `json:"keys"`
	}
	for _, k := range keys {
		material := k.private
		if material == nil {
			material = k.public
		}
		parsed, err := jwkset.NewJWKFromKey(material, jwkset.JWKOptions{
			Marshal:  jwkset.JWKMarshalOptions{Private: true},
			Metadata: jwkset.JWKMetadataOptions{ALG: jwkset.ALG(k.Algorithm), KID: k.ID, USE: jwkset.UseSig},
		})
		if err != nil {
			return nil, fmt.Errorf("kid %q: %w", k.ID, err)
		}
		doc.Keys = append(doc.Keys, jwk{parsed.Marshal(), k.Tenant})
	}
	return json.MarshalIndent(doc, "", "  ")
}
