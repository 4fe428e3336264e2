package keys

import (
	"encoding/base64"
	"testing"
)

func TestSpeaksFor(t *testing.T) {
	jwt := func(claims string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".x"
	}
	for token, ok := range map[string]bool{
		jwt(`{"tenant":"acme"}`): true, jwt(`{"tenant":"*"}`): true,
		jwt(`{"tenant":"globex"}`): false, jwt(`{}`): false, jwt(`nonsense`): false, "a.b": false, "": false,
	} {
		if err := SpeaksFor(token, "acme"); (err == nil) != ok {
			t.Errorf("%s: %v", token, err)
		}
	}
}
