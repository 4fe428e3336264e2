package route

import (
	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/schemas/registry"
)

// Known are the schemas that a registry client knows, for those beside the
// line who read payloads. It is safe for concurrent use.
func Known(c *registry.Client) processors.Schemas { return clientSchemas{c} }

type clientSchemas struct{ client *registry.Client }

func (c clientSchemas) Schema(id int32) (processors.Schema, int64) {
	if found, _ := c.client.ByID(int(id)); found != nil {
		return &schema{found}, 0
	}
	return nil, -1
}
