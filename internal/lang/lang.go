// Package lang says in which language a program speaks to the person at the
// terminal. Keys, codes and exit codes are never translated.
package lang

import (
	"os"
	"strconv"
	"strings"
)

// Terminal is "ja" or "en": by SEKISHO_LANG, then LC_ALL, LC_MESSAGES, LANG,
// then the system's own language.
func Terminal() string {
	for _, name := range []string{"SEKISHO_LANG", "LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := os.Getenv(name); v != "" {
			return pick(v)
		}
	}
	return pick(system())
}

func pick(locale string) string {
	if strings.HasPrefix(strings.ToLower(locale), "ja") {
		return "ja"
	}
	return "en"
}

// Many is a number of things in English: "1 rule", "2 rules".
func Many(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + one + "s"
}

// T is ja or en, as the terminal wants it.
func T(ja, en string) string {
	if Terminal() == "ja" {
		return ja
	}
	return en
}
