package engine

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	chcompress "github.com/ClickHouse/ch-go/compress"
	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// do sends one request as curl would and returns status, headers and body.
func do(t *testing.T, method, url string, body io.Reader, headers ...string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, _ := io.ReadAll(res.Body) // an answer cut by an exception ends with an error
	return res.StatusCode, res.Header, string(got)
}

func TestCurl(t *testing.T) {
	e, _ := start(t, t.TempDir())
	base := "http://" + e.Addr() + "/"
	q := func(args ...string) string {
		v := url.Values{}
		for i := 0; i+1 < len(args); i += 2 {
			v.Set(args[i], args[i+1])
		}
		return base + "?" + v.Encode()
	}
	gzipped := func(s string) io.Reader {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = io.WriteString(w, s)
		_ = w.Close()
		return &b
	}
	big := strings.Repeat("(3, 'many'),", 60000) + "(3, 'last')"
	for _, step := range []struct {
		name, method, url string
		body              io.Reader
		headers           []string
		status            int
		want              string // the body, or with a trailing … its beginning
	}{
		{"ping", "GET", base + "ping", nil, nil, 200, "Ok.\n"},
		{"root", "GET", base, nil, nil, 200, "Ok.\n"},
		{"no such path", "GET", base + "nope", nil, nil, 404, "There is no handle /nope…"},
		{"get", "GET", q("query", "SELECT 1"), nil, nil, 200, "1\n"},
		{"post", "POST", base, strings.NewReader("SELECT 1+1;"), nil, 200, "2\n"},
		{"query goes before body", "POST", q("query", "SELECT 3"), strings.NewReader("+4"), nil, 200, "7\n"},
		{"format clause", "POST", base, strings.NewReader("SELECT 1 AS a FORMAT JSONEachRow"), nil, 200, "{\"a\":1}\n"},
		{"default format", "GET", q("query", "SELECT 1 AS a", "default_format", "JSONEachRow"), nil, nil, 200, "{\"a\":1}\n"},
		{"create by get", "GET", q("query", "CREATE TABLE t (a Int32) ENGINE=Memory"), nil, nil, 403, "Code: 164.…"},
		{"create", "POST", base, strings.NewReader("CREATE TABLE t (a UInt64, s String) ENGINE=MergeTree ORDER BY a"), nil, 200, ""},
		{"insert by get", "GET", q("query", "INSERT INTO t VALUES (1, 'x')"), nil, nil, 403, "Code: 164.…"},
		{"values", "POST", base, strings.NewReader("INSERT INTO t VALUES (1, 'it''s; -- FORMAT')"), nil, 200, ""},
		{"values parameters", "POST", q("param_s", "par"), strings.NewReader("INSERT INTO t VALUES (2, {s:String})"), nil, 200, ""},
		{"long values", "POST", base, strings.NewReader("INSERT INTO t VALUES " + big), nil, 200, ""},
		{"rows in body", "POST", q("query", "INSERT INTO t FORMAT JSONEachRow"), strings.NewReader("{\"a\":4,\"s\":\"j\"}\n\n{\"a\":4,\"s\":\"k\"}"), nil, 200, ""},
		{"query and rows", "POST", base, strings.NewReader("INSERT INTO t (s, a) FORMAT CSV\n\"c\",5\n\"d\",5\n"), nil, 200, ""},
		{"gzip rows", "POST", q("query", "INSERT INTO t FORMAT TSV"), gzipped("6\tz\n"), []string{"Content-Encoding", "gzip"}, 200, ""},
		{"insert select", "POST", base, strings.NewReader("INSERT INTO t SELECT number + 100, 'sel' FROM numbers(10)"), nil, 200, ""},
		{"bad row", "POST", q("query", "INSERT INTO t FORMAT JSONEachRow"), strings.NewReader("{\"a\":7}\n{\"a\":bad}"), nil, 400, "Code: 27.…"},
		{"bad gzip", "POST", base, strings.NewReader("SELECT 1"), []string{"Content-Encoding", "gzip"}, 500, "Code: 271.…"},
		{"what is there", "GET", q("query", "SELECT a, count() FROM t WHERE a < 100 GROUP BY a ORDER BY a"), nil, nil, 200, "1\t1\n2\t1\n3\t60001\n4\t2\n5\t2\n6\t1\n"},
		{"values kept", "GET", q("query", "SELECT s FROM t WHERE a IN (1, 2) ORDER BY a", "default_format", "JSONEachRow"), nil, nil, 200, "{\"s\":\"it's; -- FORMAT\"}\n{\"s\":\"par\"}\n"},
		{"parameter", "GET", q("query", "SELECT {x:UInt64} + 1, {s:String}", "param_x", "41", "param_s", "a'b"), nil, nil, 200, "42\ta\\'b\n"},
		{"no parameter", "GET", q("query", "SELECT {x:UInt64}"), nil, nil, 400, "Code: 456.…"},
		{"setting", "GET", q("query", "SELECT getSetting('max_threads')", "max_threads", "3"), nil, nil, 200, "3\n"},
		{"setting does not leak", "GET", q("query", "SELECT getSetting('max_threads') = 3"), nil, nil, 200, "0\n"},
		{"unknown setting", "GET", q("query", "SELECT 1", "nosuch", "3"), nil, nil, 404, "Code: 115.…"},
		{"setting as SQL", "GET", q("query", "SELECT 1", "a=1; DROP TABLE t", "3"), nil, nil, 404, "Code: 115.…"},
		{"database", "GET", q("query", "SELECT count() > 0 FROM tables", "database", "system"), nil, nil, 200, "1\n"},
		{"unknown database", "GET", q("query", "SELECT 1", "database", "no`pe"), nil, nil, 404, "Code: 81.…"},
		{"unknown table", "GET", q("query", "SELECT * FROM nope"), nil, nil, 404, "Code: 60.…"},
		{"syntax", "GET", q("query", "SELEC 1"), nil, nil, 400, "Code: 62.…"},
		{"empty", "POST", base, nil, nil, 400, "Code: 62.…"},
		{"two statements", "POST", base, strings.NewReader("DROP TABLE t; SELECT 1"), nil, 400, "Code: 62.…"},
		{"show", "GET", q("query", "SHOW TABLES"), nil, nil, 200, "t\n"},
		{"time limit", "GET", q("query", "SELECT sleepEachRow(0.1) FROM numbers(100) FORMAT Null", "max_execution_time", "1", "max_block_size", "1"), nil, nil, 408, "Code: 159.…"},
		{"memory limit", "GET", q("query", "SELECT groupArray(number) FROM numbers(100000000) FORMAT Null", "max_memory_usage", "10000000"), nil, nil, 500, "Code: 241.…"},
		{"null is read to its end", "GET", q("query", "SELECT throwIf(number = 9000000) FROM numbers(10000000) FORMAT Null"), nil, nil, 500, "Code: 395.…"},
		{"readonly stays", "GET", q("query", "SET max_threads = 1", "readonly", "1"), nil, nil, 403, "Code: 164.…"},
		{"session", "GET", q("query", "SELECT 1", "session_id", "x"), nil, nil, 501, "Code: 48.…"},
		{"foreign page posts", "POST", base, strings.NewReader("SELECT 1"), []string{"Sec-Fetch-Site", "cross-site"}, 403, "requests of other sites…"},
		{"foreign page gets", "GET", q("query", "SELECT 1"), nil, []string{"Sec-Fetch-Site", "same-site"}, 403, "requests of other sites…"},
		{"foreign origin", "GET", q("query", "SELECT 1"), nil, []string{"Origin", "http://127.0.0.1:1"}, 403, "requests of other sites…"},
		{"own page", "GET", q("query", "SELECT 1"), nil, []string{"Origin", "http://" + e.Addr(), "Sec-Fetch-Site", "same-origin"}, 200, "1\n"},
	} {
		code, headers, got := do(t, step.method, step.url, step.body, step.headers...)
		start, cut := strings.CutSuffix(step.want, "…")
		if code != step.status || !cut && got != step.want || cut && !strings.HasPrefix(got, start) {
			t.Errorf("%s: got %d %.200q, want %d %q", step.name, code, got, step.status, step.want)
		}
		if number, ok := strings.CutPrefix(start, "Code: "); ok && headers.Get("X-ClickHouse-Exception-Code")+"." != number {
			t.Errorf("%s: X-ClickHouse-Exception-Code = %q", step.name, headers.Get("X-ClickHouse-Exception-Code"))
		}
	}
}

func TestAnswer(t *testing.T) {
	e, _ := start(t, t.TempDir())
	base := "http://" + e.Addr() + "/?query="
	t.Run("headers", func(t *testing.T) {
		_, h, _ := do(t, "GET", base+url.QueryEscape("SELECT 1 FORMAT JSON")+"&query_id=mine", nil)
		for name, want := range map[string]string{
			"X-ClickHouse-Query-Id": "mine", "X-ClickHouse-Format": "JSON", "Content-Type": "application/json; charset=UTF-8",
			"X-ClickHouse-Server-Display-Name": "spillway-dev",
		} {
			if h.Get(name) != want {
				t.Errorf("%s = %q, want %q", name, h.Get(name), want)
			}
		}
	})
	t.Run("error after rows", func(t *testing.T) {
		const query = "SELECT throwIf(number = 3000000) FROM numbers(4000000)"
		code, h, got := do(t, "GET", base+url.QueryEscape(query), nil)
		tag := h.Get("X-ClickHouse-Exception-Tag")
		if code != 200 || len(tag) != 16 || !strings.Contains(got, "\r\n__exception__\r\n"+tag+"\r\nCode: 395.") || !strings.HasSuffix(got, " "+tag+"\r\n__exception__\r\n") {
			t.Errorf("got %d, tag %q, end %.300q", code, tag, got[max(0, len(got)-300):])
		}
		code, h, got = do(t, "GET", base+url.QueryEscape(query)+"&wait_end_of_query=1", nil)
		if code != 500 || h.Get("X-ClickHouse-Exception-Code") != "395" || !strings.HasPrefix(got, "Code: 395.") {
			t.Errorf("held back: got %d %.100q", code, got)
		}
	})
	t.Run("encodings", func(t *testing.T) {
		for enc, decoder := range map[string]func(io.Reader) (io.Reader, error){
			"gzip":    func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
			"deflate": func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) },
			"br":      func(r io.Reader) (io.Reader, error) { return brotli.NewReader(r), nil },
			"zstd":    func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
			"":        func(r io.Reader) (io.Reader, error) { return r, nil },
		} {
			req, _ := http.NewRequestWithContext(t.Context(), "GET", base+url.QueryEscape("SELECT number FROM numbers(200000)"), nil)
			req.Header.Set("Accept-Encoding", enc)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := decoder(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(body)
			_ = res.Body.Close()
			if err != nil || res.Header.Get("Content-Encoding") != enc || !strings.HasSuffix(string(got), "\n199999\n") {
				t.Errorf("%q: %v, encoding %q, %d bytes", enc, err, res.Header.Get("Content-Encoding"), len(got))
			}
		}
	})
	t.Run("blocks", func(t *testing.T) {
		for _, method := range []string{"LZ4", "ZSTD", "NONE"} {
			req, _ := http.NewRequestWithContext(t.Context(), "GET", base+url.QueryEscape("SELECT number FROM numbers(200000)")+"&compress=1&network_compression_method="+method, nil)
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(chcompress.NewReader(res.Body))
			_ = res.Body.Close()
			if !errors.Is(err, io.EOF) || // it has no clean end
				!strings.HasSuffix(string(got), "\n199999\n") {
				t.Errorf("%s: %v, %d bytes", method, err, len(got))
			}
		}
	})
	t.Run("cut-off blocks are not committed", func(t *testing.T) {
		do(t, "POST", "http://"+e.Addr()+"/", strings.NewReader("CREATE TABLE cut (a UInt64) ENGINE=MergeTree ORDER BY a"))
		w := chcompress.NewWriter(chcompress.LevelZero, chcompress.LZ4)
		if err := w.Compress([]byte("1\n2\n3\n")); err != nil {
			t.Fatal(err)
		}
		into := base + url.QueryEscape("INSERT INTO cut FORMAT TSV") + "&decompress=1"
		for _, n := range []int{10, 25, len(w.Data) - 1} { // in the header, behind it, in the data
			if code, _, got := do(t, "POST", into, bytes.NewReader(w.Data[:n])); code != 500 || !strings.HasPrefix(got, "Code: 271.") {
				t.Errorf("%d bytes: got %d %q", n, code, got)
			}
		}
		if code, _, got := do(t, "POST", into, bytes.NewReader(w.Data)); code != 200 {
			t.Errorf("whole: got %d %q", code, got)
		}
		if _, _, got := do(t, "GET", base+"SELECT+count()+FROM+cut", nil); got != "3\n" {
			t.Errorf("count = %q", got)
		}
	})
}
