package fileaudit

import (
	"strings"

	"sekisho/internal/winpath"
)

// markStreams are streams that Windows and programs write beside files, with a few
// bytes on where they came from. They are no copies of anything as long as they are
// not longer than markSize.
var markStreams = map[string]bool{"zone.identifier": true, "smartscreen": true, "ms-properties": true, "com.dropbox.attributes": true, "com.dropbox.attrs": true, "afp_afpinfo": true}

const markSize = 4096

// isMark reports whether a file, or a stream of one, is what Windows writes by itself
// on every disk, and no copy of anything: what lies in System Volume Information,
// where nobody else may write, the recycle bin's notes ($I...) and its desktop.ini,
// and markStreams. Of what others can write it goes by the size, too.
func isMark(path, stream string, size int64) bool {
	if stream != "" {
		return size <= markSize && markStreams[strings.ToLower(stream)]
	}
	if !winpath.IsDrive(path) || len(path) < 4 {
		return false
	}
	top, _, _ := strings.Cut(path[3:], `\`)
	switch {
	case strings.EqualFold(top, "System Volume Information"):
		return true
	case strings.EqualFold(top, "$RECYCLE.BIN"):
		name := path[strings.LastIndexByte(path, '\\')+1:]
		return size <= markSize && (strings.HasPrefix(name, "$I") || strings.EqualFold(name, "desktop.ini"))
	}
	return false
}
