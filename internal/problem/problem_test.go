package problem

import (
	"strings"
	"testing"
)

func TestSuggest(t *testing.T) {
	known := []string{"enabled", "department", "tags", "url"}
	for got, want := range map[string]string{"enabeld": "enabled", "Departement": "department", "tag": "tags", "ulr": "url", "xyz": "", "": "", strings.Repeat("a", 100): ""} {
		if s := Suggest(got, known); s != want {
			t.Errorf("%q: got %q, want %q", got, s, want)
		}
	}
}

func TestAProblemIsShownWithItsPlace(t *testing.T) {
	ps := Problems{
		{File: "b.yml", Line: 2, Col: 9, Path: "rules", Code: "X-2", JA: "だめです", EN: "is wrong", Hint: "USB-3", Text: "規則: [USB-33]"},
		{File: "a\x1b.yml", Line: 9, Col: 1, Rule: `Copy "all"`, Code: "X-1", JA: "いけません", EN: "must not be", Text: "\x1b[31mred"},
		{File: "b.yml", Line: 1, Col: 20, Code: "X-3", JA: "秘密", EN: "secret", Text: "password: hunter2"},
		{Path: strings.Repeat("p", 300), Code: "X-4", JA: "長い", EN: "long"},
	}
	var b strings.Builder
	if err := Sorted(ps).Print(&b, "ja"); err != nil {
		t.Fatal(err)
	}
	want := `b.yml:1:20: 秘密 [X-3]
     1 | password: <secret>
       |                   ^
b.yml:2:9: rules: だめです（"USB-3" ではありませんか） [X-2]
     2 | 規則: [USB-33]
       |           ^
a?.yml:9:1: ルール"Copy \"all\"": いけません [X-1]
     9 | ?[31mred
       | ^
` + strings.Repeat("p", 200) + "...: 長い [X-4]\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	if got := ps[1].Message("en"); got != `b.yml:2:9: rules: is wrong (did you mean "USB-3"?) [X-2]` {
		t.Errorf("got %s", got)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add("a.yml", "usb\x1b]0;x\a", "key: \x9b31m値", 7)
	f.Fuzz(func(t *testing.T, file, hint, text string, col int) {
		ps := Problems{{File: file, Line: 1, Col: col, Path: hint, Rule: hint, EN: Quote(text), Hint: hint, Text: text}}
		var b strings.Builder
		if err := ps.Print(&b, "en"); err != nil {
			t.Fatal(err)
		}
		for _, r := range b.String() {
			if r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 {
				t.Fatalf("a terminal would act on %q", b.String())
			}
		}
		if n := len([]rune(b.String())); n > 2000+len(file) {
			t.Fatalf("%d characters", n)
		}
	})
}
