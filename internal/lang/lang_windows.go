package lang

import "golang.org/x/sys/windows"

// system is the user's preferred UI language, "ja-JP".
func system() string {
	names, err := windows.GetUserPreferredUILanguages(windows.MUI_LANGUAGE_NAME)
	if err != nil || len(names) == 0 {
		return ""
	}
	return names[0]
}
