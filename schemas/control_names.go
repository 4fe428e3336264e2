package schemas

// Full names of the records on `control`, and their registry subjects.
const (
	PolicyName   = "spillway.Policy"
	EndpointName = "spillway.Endpoint"
	FlagName     = "spillway.Flag"
	SecretName   = "spillway.Secret"
	SettingsName = "spillway.Settings"
)

// controlFiles name the .avsc file of each record on `control`.
var controlFiles = map[string]string{
	PolicyName:   "control_policy.avsc",
	EndpointName: "control_endpoint.avsc",
	FlagName:     "control_flag.avsc",
	SecretName:   "control_secret.avsc",
	SettingsName: "control_settings.avsc",
}

// ControlSchemas are the schemas of the records on `control`, text by full
// name.
func ControlSchemas() map[string]string { return read(controlFiles) }
