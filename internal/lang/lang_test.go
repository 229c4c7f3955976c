package lang

import "testing"

func TestTheFirstVariableThatIsSetDecides(t *testing.T) {
	for _, c := range []struct{ sekisho, lcAll, lang, want string }{
		{"ja", "C", "en_US.UTF-8", "ja"},
		{"", "ja_JP.UTF-8", "C", "ja"},
		{"", "", "ja_JP.eucJP", "ja"},
		{"en", "ja_JP.UTF-8", "ja_JP.UTF-8", "en"},
		{"", "", "C", "en"},
	} {
		t.Setenv("SEKISHO_LANG", c.sekisho)
		t.Setenv("LC_ALL", c.lcAll)
		t.Setenv("LC_MESSAGES", "")
		t.Setenv("LANG", c.lang)
		if got := Terminal(); got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
}
