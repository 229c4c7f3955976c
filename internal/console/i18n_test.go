package console

import (
	"html/template"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template/parse"

	"sekisho/internal/account"
	"sekisho/internal/alert"
	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

func printers(t testing.TB) map[string]*printer {
	t.Helper()
	m := map[string]*printer{}
	for _, lang := range languages {
		m[lang] = newPrinter(lang, tokyo(), "/static/x/")
	}
	return m
}

var verb = regexp.MustCompile(`%(\[\d+\])?[a-z]`)

func TestBothCataloguesHaveTheSameKeysAndVerbs(t *testing.T) {
	ps := printers(t)
	for key, ja := range ps["ja"].cat {
		en, ok := ps["en"].cat[key]
		if !ok {
			t.Errorf("%s: missing in en", key)
			continue
		}
		if strings.TrimSpace(ja) == "" || strings.TrimSpace(en) == "" {
			t.Errorf("%s: empty", key)
		}
		// An index counts as the verb in its place.
		strip := func(s string) (v []string) {
			for _, m := range verb.FindAllString(s, -1) {
				v = append(v, m[len(m)-1:])
			}
			return v
		}
		if a, b := strip(ja), strip(en); !slices.Equal(a, b) {
			t.Errorf("%s: verbs %q in ja, %q in en", key, a, b)
		}
	}
	for key := range ps["en"].cat {
		if !ps["ja"].has(key) {
			t.Errorf("%s: missing in ja", key)
		}
	}
}

// texts calls f for every call of t or n with a constant key in a template.
func texts(node parse.Node, f func(fn, key string)) {
	switch n := node.(type) {
	case *parse.ListNode:
		if n != nil {
			for _, c := range n.Nodes {
				texts(c, f)
			}
		}
	case *parse.ActionNode:
		texts(n.Pipe, f)
	case *parse.TemplateNode:
		texts(n.Pipe, f)
	case *parse.IfNode:
		texts(n.Pipe, f)
		texts(n.List, f)
		texts(n.ElseList, f)
	case *parse.RangeNode:
		texts(n.Pipe, f)
		texts(n.List, f)
		texts(n.ElseList, f)
	case *parse.WithNode:
		texts(n.Pipe, f)
		texts(n.List, f)
		texts(n.ElseList, f)
	case *parse.PipeNode:
		if n != nil {
			for _, c := range n.Cmds {
				texts(c, f)
			}
		}
	case *parse.CommandNode:
		if fn, ok := n.Args[0].(*parse.IdentifierNode); ok && len(n.Args) > 1 && (fn.Ident == "t" || fn.Ident == "n") {
			if key, ok := n.Args[1].(*parse.StringNode); ok {
				f(fn.Ident, key.Text)
			}
		}
		for _, a := range n.Args {
			texts(a, f)
		}
	}
}

func TestEveryKeyOfTheTemplatesIsInTheCatalogue(t *testing.T) {
	p := printers(t)["ja"]
	found := 0
	for name, page := range p.pages {
		for _, tmpl := range page.Templates() {
			if tmpl.Tree == nil {
				continue
			}
			texts(tmpl.Tree.Root, func(fn, key string) {
				found++
				keys := []string{key}
				if fn == "n" {
					keys = []string{key + ".one", key + ".other"}
				}
				for _, k := range keys {
					if !p.has(k) {
						t.Errorf("page %s, template %s: no text for %q", name, tmpl.Name(), k)
					}
				}
			})
		}
	}
	if found < 200 {
		t.Errorf("found %d keys in all templates: the search is broken", found)
	}
}

// Keys that the code puts together.
func TestEveryCodeHasAText(t *testing.T) {
	var keys []string
	add := func(prefix string, codes ...string) {
		for _, c := range codes {
			keys = append(keys, prefix+c)
		}
	}
	add("level.", alert.LevelNames[:]...)
	for _, s := range alert.States {
		add("state.", string(s))
	}
	for _, r := range alert.Reasons {
		add("reason.", string(r), string(r)+".hint")
	}
	for _, tab := range tabs {
		add("", "tab."+tab.Key, "empty."+tab.Key, "empty."+tab.Key+".hint")
	}
	for _, h := range healths {
		add("health.", string(h))
	}
	for _, s := range []endpoint.SensorState{endpoint.SensorOK, endpoint.SensorLimited, endpoint.SensorDegraded, endpoint.SensorDown, endpoint.SensorUnavailable, endpoint.SensorOff} {
		add("sensorstate.", string(s))
	}
	for _, r := range account.Roles {
		add("role.", string(r), string(r)+".hint")
	}
	for _, a := range answers {
		add("", a.key, a.key+".hint")
	}
	add("error.", "internal", "internal.hint")
	for _, g := range factGroups {
		add("facts.", g.key)
		for _, f := range g.fields {
			add("field.", f)
			if _, ok := event.FieldByName(f); !ok {
				t.Errorf("fact %q is no field of an event", f)
			}
		}
	}
	add("csv.", csvColumns...)
	add("csv.", "more")
	add("action.", string(event.FileCopied), string(event.AgentCrashed), string(event.SelftestFailed))
	add("nav.", "alerts", "endpoints", "audit", "account")
	add("audit.", "login", "login-failed", "login-limited", "logout", "password-change", "password-failed", "alert-view", "alert-change", "alert-export")
	add("queue.", "alerts", "activity")
	add("theme.", "light", "auto", "dark")
	for _, k := range []string{"rule", "host", "user", "q", "group", "level"} {
		add("filter.", k)
	}
	for _, k := range []string{"seconds", "minutes", "hours", "days"} {
		add("span.", k+".one", k+".other")
	}
	for lang, p := range printers(t) {
		for _, k := range keys {
			if !p.has(k) {
				t.Errorf("%s: no text for %q", lang, k)
			}
		}
	}
}

func TestTextsFromOutsideAreHarmless(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain", "報告書.xlsx", "<bdi>報告書.xlsx</bdi>"},
		{"markup", `<img src=x onerror=alert(1)>"'&`, "<bdi>&lt;img src=x onerror=alert(1)&gt;&#34;&#39;&amp;</bdi>"},
		{"right-to-left override", "a\u202etxt.exe", "<bdi>a⟨U+202E⟩txt.exe</bdi>"},
		{"isolates that would end ours", "\u2069\u2069b", "<bdi>⟨U+2069⟩⟨U+2069⟩b</bdi>"},
		{"controls", "a\x00\n\x1b[31m\x7f\u0085", "<bdi>a⟨U+0000⟩⟨U+000A⟩⟨U+001B⟩[31m⟨U+007F⟩⟨U+0085⟩</bdi>"},
		{"zero width", "pay\u200bpal\ufeff\u00ad", "<bdi>pay⟨U+200B⟩pal⟨U+FEFF⟩⟨U+00AD⟩</bdi>"},
		{"blank letters", "\u3164\u2800", "<bdi>⟨U+3164⟩⟨U+2800⟩</bdi>"},
		{"line separators", "a\u2028b\u2029", "<bdi>a⟨U+2028⟩b⟨U+2029⟩</bdi>"},
		{"tags", "x\U000e0041", "<bdi>x⟨U+E0041⟩</bdi>"},
		{"bad UTF-8", "a\xff\xfeb", "<bdi>a\ufffd\ufffdb</bdi>"},
		{"a tower of marks", "e" + strings.Repeat("\u0301", 50), "<bdi>e" + strings.Repeat("\u0301", 4) + "</bdi>"},
		{"decomposed kana stay", "か\u3099", "<bdi>か\u3099</bdi>"},
	}
	p := printers(t)["ja"]
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := p.bdi(tt.in); string(got) != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	long := p.bdi(strings.Repeat("長", 1<<20))
	if !strings.Contains(string(long), "1,048,576 文字") || len(long) > 2000 {
		t.Errorf("a text of a million characters: got %d bytes ending %q", len(long), string(long[max(0, len(long)-80):]))
	}
}

func FuzzTextsFromOutside(f *testing.F) {
	f.Add("<script>\u202e\x00{user.name}")
	f.Add("{user.name}{{x}{}")
	ps := printers(f)
	f.Fuzz(func(t *testing.T, s string) {
		p := ps["en"]
		a := &alert.Alert{Event: &event.Event{User: &event.User{Name: s}}, Rule: alert.Rule{Name: s}}
		for _, h := range []template.HTML{p.bdi(s), p.fill(s, a), p.fill("{user.name}"+s, a)} {
			rest := strings.NewReplacer("<bdi>", "", "</bdi>", "", `<span class="cut">`, "", `<span class="unknown">`, "", "</span>", "").Replace(string(h))
			if strings.ContainsAny(rest, "<>\"'") {
				t.Errorf("%q: markup left in %q", s, h)
			}
			for _, r := range rest {
				if r < 0x20 || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
					t.Errorf("%q: %U left in %q", s, r, h)
				}
			}
		}
	})
}

func TestPlaceholdersAreFilledIn(t *testing.T) {
	a := &alert.Alert{
		Rule: alert.Rule{Name: "R", Table: "USB-3"}, Count: 1234, Keys: map[string]string{"sekisho.only.key": "k"},
		Totals: map[string]int64{"files": 80, "bytes": 12_345_678, "events": 3},
		Event: &event.Event{User: &event.User{Name: "<b>sato"}, Context: &event.Context{DeviceLedger: "unregistered"},
			Copy: &event.Copy{Bytes: event.Some(int64(999_999))}, Message: "in a user namespace the kernel does not announce devices", Extra: map[string]event.Value{"own.field": event.Text("x")}},
	}
	tests := []struct{ in, want string }{
		{"no placeholder", "no placeholder"},
		{"{user.name}", "<bdi>&lt;b&gt;sato</bdi>"},
		{"{user.domain} は", `<span class="unknown">不明</span> は`},
		{"{sekisho.alert.totals.files}と{sekisho.alert.totals.bytes}", "<bdi>80 ファイル</bdi>と<bdi>12.3 MB</bdi>"},
		{"{sekisho.alert.totals.events}", "<bdi>3</bdi>"},
		{"{sekisho.alert.count}", "<bdi>1,234</bdi>"},
		{"{sekisho.alert.keys.sekisho.only.key}{sekisho.only.key}", "<bdi>k</bdi><bdi>k</bdi>"},
		{"{sekisho.device.ledger}", "<bdi>未登録</bdi>"},
		{"{sekisho.copy.bytes}", "<bdi>1.0 MB</bdi>"},
		{"（{message}）", "（<bdi>ユーザー名前空間の中では、カーネルが機器を知らせません</bdi>）"},
		{"{own.field}{sekisho.rule}", "<bdi>x</bdi><bdi>USB-3</bdi>"},
		{"{ user.name } {} {A} {", "{ user.name } {} {A} {"},
		{"<b>{{user.name}}</b>", "&lt;b&gt;{<bdi>&lt;b&gt;sato</bdi>}&lt;/b&gt;"},
	}
	p := printers(t)["ja"]
	for _, tt := range tests {
		if got := string(p.fill(tt.in, a)); got != tt.want {
			t.Errorf("%q: got %s, want %s", tt.in, got, tt.want)
		}
	}
	nobody := &alert.Alert{Event: &event.Event{}}
	if got, want := string(p.fill("{user.name} さんが", nobody)), `<span class="unknown">不明な利用者</span>が`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNumbersAreWrittenForPeople(t *testing.T) {
	p := printers(t)["en"]
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567", 1 << 40: "1,099,511,627,776"} {
		if got := p.number(n); got != want {
			t.Errorf("number %d: got %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_999: "1.0 MB", 12_345_678: "12.3 MB", 123_456_789: "123 MB", 1 << 62: "4612 PB"} {
		if got := p.bytes(n); got != want {
			t.Errorf("bytes %d: got %q, want %q", n, got, want)
		}
	}
}
