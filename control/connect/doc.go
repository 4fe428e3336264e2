// Package connect says how a process reaches what is outside of it, and why it
// cannot.
//
//	flags ─▶ Config ─ New ─▶ Connections ─┬─ Kafka       options of a client: TLS, SASL
//	                 (checks              ├─ Registry    a transport: TLS, basic authentication
//	                  everything)         └─ ClickHouse  a tls.Config, user and password
//
//	Check    tries once, before anything else begins: can it be reached, are we let in, may we do what we need?
//	Watcher  does so again and again while the process runs, for /readyz
//	Explain  turns an error of any library into one line that names the setting
//
// A certificate and a password in a file may be replaced while the process
// runs: files are looked at whenever a connection is made, and read again if
// they have changed. If the new ones cannot be read the old ones stay, with a
// line in the log.
//
// A server's certificate is always checked, name and dates included: there is
// no setting that turns that off. Nothing here logs or returns a password.
package connect
