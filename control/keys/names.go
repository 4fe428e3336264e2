package keys

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spillway/spillway/schemas"
)

// SpeaksFor is an error if a token is another tenant's than the one a person
// named: what follows would be about that other one. It verifies nothing:
// whether the token counts is for those to say who are shown it.
func SpeaksFor(token, tenant string) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return errors.New("is no JWT: three parts with dots between them")
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct{ Tenant string }
	if err == nil {
		err = json.Unmarshal(text, &claims)
	}
	if err != nil {
		return fmt.Errorf("is no JWT: %w", err)
	}
	if claims.Tenant != tenant && claims.Tenant != schemas.Everyone {
		return fmt.Errorf("is for tenant %q, not for %q", claims.Tenant, tenant)
	}
	return nil
}
