package volume

import (
	"bytes"
	"compress/gzip"
	"math/rand/v2"
	"strconv"
	"testing"
)

func TestWhatEncryptsAMedium(t *testing.T) {
	lots := make([]byte, sniffed)
	for i := range lots {
		lots[i] = byte(rand.Uint32())
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	for i := range 40_000 {
		z.Write([]byte(strconv.Itoa(i * i)))
	}
	z.Close()
	at := func(offset int, text string) []byte {
		b := make([]byte, sniffed)
		copy(b[offset:], text)
		return b
	}
	for name, tt := range map[string]struct {
		begin []byte
		want  string
	}{
		"LUKS":                       {at(0, "LUKS\xba\xbe\x00\x02"), "luks"},
		"BitLocker":                  {at(0, "\xeb\x58\x90-FVE-FS-"), "bitlocker"},
		"BitLocker To Go":            {at(0, "\xeb\x58\x90MSWIN4.1"+string(make([]byte, 413))+string(bitLockerToGo)), "bitlocker"},
		"FAT by an old Windows":      {at(0, "\xeb\x58\x90MSWIN4.1"), ""},
		"no signature, as VeraCrypt": {lots, "unknown"},
		"too little to tell":         {lots[:4096], ""},
		"an empty medium":            {at(0, ""), ""},
		"FAT":                        {at(0, "\xeb\x58\x90mkfs.fat"), ""},
		"ext4":                       {at(1080, "\x53\xef"), ""},
		"something compressed":       {packed.Bytes()[:sniffed], ""},
		"nothing":                    {nil, ""},
	} {
		if got := cipher(tt.begin); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
