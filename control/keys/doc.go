// Package keys reads and makes the tokens (JWT, RFC 7519) that every HTTP and
// WebSocket request carries (DESIGN section 6.4), and holds the keys they are
// signed with.
//
//	JWKS file ──Reload──┐
//	                    ├──▶ set: keys by kid, cache of verified tokens (immutable but for the cache)
//	JWKS URL ──Run──────┘         │
//	                              ├─ Verify(token) ──▶ schemas.Claims, or *Error with reason and claim
//	                              └─ Sign(claims)  ──▶ token
//
// A key is a JWK (RFC 7517) for HS256, RS256, ES256 or EdDSA (Ed25519). It
// verifies its own algorithm and no other. A key with the member "tenant"
// speaks for that tenant alone, one without it for all. Keys of other kinds, or
// for encryption, are passed over.
//
// It is no identity provider: who gets which token is decided elsewhere.
package keys
