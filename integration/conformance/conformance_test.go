package conformance

import (
	"strings"
	"testing"
)

// script is a registry that answers what it is told.
func script(answers map[string]string) Asker {
	return func(method, path, body string) (int, string, error) {
		status, text, _ := strings.Cut(answers[method+" "+path+body], " ")
		n := 0
		for _, c := range status {
			n = 10*n + int(c-'0')
		}
		return n, text, nil
	}
}

func TestRun(t *testing.T) {
	const table = `let S = {"namespace":"@@","type":"record"}
## one
POST /subjects/@a {"schema":$S}
200 {"id":$id1}
GET /ids/$id1
200 {"schema":$S,"in":["@b","@a"]}
POST /subjects/@b
200 {"id":$id2}
or 409 {"error_code":409}
GET /ids/$id3
200 {}
## two
GET /@
200 [{"id":$id1},{"id":$id2}]
GET /x
200 {"a":"*","b":null}
`
	steps, err := Parse(strings.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]string{
		`POST /subjects/r.1.a{"schema":"{\"namespace\":\"rrs1\",\"type\":\"record\"}"}`: `200 {"id":7,"more":1}`,
		`GET /ids/7`:           `200 {"schema":"{ \"type\":\"record\", \"namespace\":\"rrs1\" }","in":["r.1.a","r.1.b"]}`,
		`POST /subjects/r.1.b`: `409 {"error_code":409}`,
		`GET /r.2.`:            `200 [{"id":1},{"id":2}]`,
		`GET /x`:               `200 {"a":[],"b":null}`,
	}
	findings, err := Run(script(good), steps, "r")
	if err != nil {
		t.Fatal(err)
	}
	var why []string
	for _, f := range findings {
		if f.Why != "" {
			why = append(why, f.Step.Request()+": "+f.Why)
		}
	}
	if got := strings.Join(why, "\n"); got != "GET /ids/$id3: not asked: nothing gave $id3" {
		t.Errorf("got %s", got)
	}
	for request, answer := range map[string]string{
		`GET /ids/7`:           `200 {"schema":"{\"type\":\"enum\",\"namespace\":\"rrs1\"}","in":["r.1.a","r.1.b"]}`, // another schema
		`POST /subjects/r.1.b`: `200 {"id":7}`,                                                                       // an id twice
		`GET /r.2.`:            `200 [{"id":1},{"id":1}]`,                                                            // same
		`GET /x`:               `200 {"b":null}`,                                                                     // a member is missing
	} {
		bad := map[string]string{}
		for k, v := range good {
			bad[k] = v
		}
		bad[request] = answer
		findings, err := Run(script(bad), steps, "r")
		n := 0
		for _, f := range findings {
			if f.Why != "" {
				n++
			}
		}
		if err != nil || n != 2 {
			t.Errorf("%s answers %s: %d findings, %v", request, answer, n, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, table := range []string{"200 {}", "GET /\n200 {}\n404 {}", "GET / $NONE", "GET /\nor x {}"} {
		if _, err := Parse(strings.NewReader(table)); err == nil {
			t.Errorf("%q is read", table)
		}
	}
}

func TestCompare(t *testing.T) {
	table := []Step{{Line: 1, Method: "GET", Path: "/a"}, {Line: 3, Method: "GET", Path: "/b"}, {Line: 5, Method: "GET", Path: "/c"}}
	found := func(why1, why3 string) []Finding {
		return []Finding{{Step: &table[0], Status: 200, Why: why1}, {Step: &table[1], Status: 404, Code: 40401, Why: why3}}
	}
	known := []Deviation{{3, "GET /b", 404, 40401, "so it is"}, {5, "GET /c", 500, 0, "not run"}}
	for _, c := range []struct {
		findings []Finding
		known    []Deviation
		want     string // of the only problem
	}{
		{found("", "it is"), known, ""},
		{found("", ""), known, "gone"},
		{found("new", "it is"), known, "1 GET /a -> 200 | new"},
		{found("", "it is"), []Deviation{{3, "GET /b", 404, 40403, "another code"}}, "404 40401"},
		{found("", "it is"), []Deviation{{3, "GET /x", 404, 40401, "the table has moved"}}, "the deviation says GET /x"},
		{found("", "it is"), append(known, Deviation{4, "GET /d", 1, 0, "nowhere"}), "no step is at this line"},
	} {
		got := Compare(table, c.findings, c.known)
		if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// TestDeviationsAreExplained: each file reads, line by line.
func TestDeviationsAreExplained(t *testing.T) {
	for _, name := range []string{"embedded", "apicurio"} {
		known, err := Known(name)
		if err != nil {
			t.Error(err)
		}
		for _, d := range known {
			if again, err := parseDeviation(d.String()); err != nil || again != d {
				t.Errorf("%s: %v, %v", d, again, err)
			}
		}
	}
	for _, text := range []string{"1 GET /a -> 404", "1 GET /a -> 404 | ", "x GET /a -> 404 | r", "1 GET /a | r", "1 GET /a -> 404 x | r"} {
		if _, err := parseDeviation(text); err == nil {
			t.Errorf("%q is read", text)
		}
	}
}
