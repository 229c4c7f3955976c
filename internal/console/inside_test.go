package console

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// luminance and contrast are those of WCAG 2.2.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	hex = strings.TrimPrefix(hex, "#")
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil || len(hex) != 6 {
		t.Fatalf("colour %q: want #rgb or #rrggbb", hex)
	}
	linear := func(c uint64) float64 {
		v := float64(c&0xff) / 255
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(n>>16) + 0.7152*linear(n>>8) + 0.0722*linear(n)
}

func contrast(t *testing.T, a, b string) float64 {
	x, y := luminance(t, a), luminance(t, b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func TestTextsHaveEnoughContrast(t *testing.T) {
	css := string(loadStatic().files["sekisho.css"])
	colours := map[string][2]string{}
	for _, m := range regexp.MustCompile(`--([a-z-]+): light-dark\((#[0-9a-f]+), (#[0-9a-f]+)\)`).FindAllStringSubmatch(css, -1) {
		colours[m[1]] = [2]string{m[2], m[3]}
	}
	pairs := []struct{ text, on string }{
		{"text", "bg surface raised sunk hover selected new warn-soft accent-soft critical-soft"},
		{"muted", "bg surface raised sunk hover selected new warn-soft accent-soft"},
		{"faint", "bg surface"},
		{"accent", "bg surface raised hover new"},
		{"accent-strong", "surface accent-soft raised hover"},
		{"on-accent", "accent accent-strong"},
		{"critical", "bg surface hover selected new critical-soft"},
		{"high", "bg surface hover selected new"},
		{"medium", "bg surface hover selected new"},
		{"low", "bg surface hover selected new"},
		{"ok", "bg surface hover selected"},
		{"rail-text", "rail rail-active"},
		{"rail-strong", "rail rail-active"},
	}
	for _, p := range pairs {
		for on := range strings.FieldsSeq(p.on) {
			fg, ok1 := colours[p.text]
			bg, ok2 := colours[on]
			if !ok1 || !ok2 {
				t.Fatalf("no colour %s or %s", p.text, on)
			}
			for i, scheme := range []string{"light", "dark"} {
				if got := contrast(t, fg[i], bg[i]); got < 4.5 {
					t.Errorf("%s: %s on %s: contrast %.2f, want 4.5 or more", scheme, p.text, on, got)
				}
			}
		}
	}
}

// Pages may load nothing but what this server gives.
func TestStaticFilesNameNoOtherServer(t *testing.T) {
	for name, b := range loadStatic().files {
		for _, url := range regexp.MustCompile(`(?i)(https?:)?//[a-z0-9.-]+\.[a-z]{2,}`).FindAll(b, -1) {
			if string(url) != "http://www.w3.org" { // the name space of SVG, which is never fetched
				t.Errorf("%s names %s", name, url)
			}
		}
		if strings.Contains(string(b), "@import") || strings.Contains(string(b), "@font-face") {
			t.Errorf("%s imports or brings a font", name)
		}
	}
}

var tokyoNoon = time.Date(2026, 11, 21, 12, 0, 0, 0, tokyo())

func TestTheLimiterIsBounded(t *testing.T) {
	l := newLimiter(1e9, 2)
	now := tokyoNoon
	for i := range maxKeys + 10 {
		l.allow(strconv.Itoa(i), now)
	}
	if len(l.keys) > maxKeys {
		t.Errorf("%d keys, want at most %d", len(l.keys), maxKeys)
	}
	if l.allow("new", now) {
		t.Error("a new key while all others are in use: allowed")
	}
	if later := now.Add(1e10); !l.allow("new", later) || len(l.keys) > 2 {
		t.Errorf("10 s later: refused, or %d keys are left", len(l.keys))
	}
}

func TestCutsFallBetweenCharacters(t *testing.T) {
	for _, tt := range []struct {
		s    string
		max  int
		want string
	}{
		{"PC-1047", 7, "PC-1047"}, {"PC-1047", 2, "PC"}, {"総務課", 9, "総務課"}, {"総務課", 8, "総務"}, {"総務課", 6, "総務"}, {"総務課", 4, "総"}, {"総務課", 2, ""}, {"a総務課", 4, "a総"},
	} {
		if got := cutBytes(tt.s, tt.max); got != tt.want {
			t.Errorf("%q to %d bytes: got %q, want %q", tt.s, tt.max, got, tt.want)
		}
	}
}

func TestRedirectsStayOnThisServer(t *testing.T) {
	for path, want := range map[string]bool{
		"/": true, "/alerts?level=high&q=%2F": true, "/alerts/0192": true,
		"": false, "alerts": false, "https://evil.example/": false, "//evil.example/": false, `/\evil.example`: false, `\\evil.example`: false,
		"/\t/evil.example": false, "/a\r\nSet-Cookie: x": false, "javascript:alert(1)": false, "/%zz": false,
	} {
		if got := localPath(path); got != want {
			t.Errorf("%q: got %v, want %v", path, got, want)
		}
	}
}
