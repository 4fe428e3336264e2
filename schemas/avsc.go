package schemas

import "embed"

//go:embed *.avsc
var files embed.FS

// systemFiles and sampleFiles name the .avsc file of each record by its full
// name, which is also its registry subject.
var (
	systemFiles = map[string]string{
		TransitionName:   "transition.avsc",
		ReceiptName:      "receipt.avsc",
		SessionRangeName: "session_range.avsc",
		NodeName:         "node.avsc",
	}
	sampleFiles = map[string]string{
		"ai.inference.Request":    "ai.inference.request.avsc",
		"ai.inference.TokenDelta": "ai.inference.token_delta.avsc",
		"ai.inference.Completed":  "ai.inference.completed.avsc",
		"demo.Message":            "demo.message.avsc",
	}
)

// SystemSchemas are the schemas of Spillway's own records, text by full name.
func SystemSchemas() map[string]string { return read(systemFiles) }

// SampleSchemas are the schemas that `spillway dev` registers for trying
// things out, text by full name.
func SampleSchemas() map[string]string { return read(sampleFiles) }

func read(names map[string]string) map[string]string {
	out := make(map[string]string, len(names))
	for name, file := range names {
		text, err := files.ReadFile(file)
		if err != nil {
			panic("schemas: embedded file is missing: " + err.Error())
		}
		out[name] = string(text)
	}
	return out
}
