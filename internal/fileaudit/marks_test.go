package fileaudit

import "testing"

func TestMarksOfWindows(t *testing.T) {
	for _, tt := range []struct {
		path, stream string
		size         int64
		want         bool
	}{
		{`E:\a.txt:Zone.Identifier`, "Zone.Identifier", 100, true},
		{`E:\a.txt:zone.identifier`, "zone.identifier", 5000, false},
		{`E:\a.txt:secret`, "secret", 100, false},
		{`E:\a.txt`, "", 0, false},
		{`E:\System Volume Information\WPSettings.dat`, "", 1 << 20, true},
		{`E:\a\System Volume Information\x`, "", 10, false},
		{`E:\$RECYCLE.BIN\S-1-5-21-1\$IABCDEF.xlsx`, "", 544, true},
		{`E:\$RECYCLE.BIN\S-1-5-21-1\$IABCDEF.xlsx`, "", 5000, false},
		{`E:\$Recycle.Bin\S-1-5-21-1\desktop.ini`, "", 129, true},
		{`E:\$RECYCLE.BIN\S-1-5-21-1\$RABCDEF.xlsx`, "", 544, false},
		{`E:\`, "", 0, false},
	} {
		if got := isMark(tt.path, tt.stream, tt.size); got != tt.want {
			t.Errorf("%s of %d bytes is a mark: %v", tt.path, tt.size, got)
		}
	}
}
