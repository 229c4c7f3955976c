package volume

import (
	"bytes"
	"path/filepath"
)

// sniffed is how much of a medium is looked at: a VeraCrypt header is 64 KiB,
// all of it random.
const sniffed = 64 << 10

// bitLockerToGo is {4967d63b-2e29-4ad8-8399-f6a339e3d001} at byte 424 of a medium
// that begins like a FAT file system ("MSWIN4.1"), to show older systems a program
// that reads it (libyal's "BitLocker Drive Encryption (BDE) format", boot sector).
var bitLockerToGo = []byte{0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01}

// cipher returns what encrypts a medium by its beginning: "luks", "bitlocker",
// "unknown" where there is no signature and what is there looks random, as a
// VeraCrypt volume does; "" if nothing does.
func cipher(b []byte) string {
	switch {
	case bytes.HasPrefix(b, []byte("LUKS\xba\xbe")):
		return "luks"
	case len(b) > 11 && string(b[3:11]) == "-FVE-FS-", len(b) >= 440 && bytes.Equal(b[424:440], bitLockerToGo):
		return "bitlocker"
	case len(b) == sniffed && random(b):
		return "unknown"
	}
	return ""
}

// random reports whether bytes look as if drawn by lot: chi-square over the 256
// values. Its mean is 255, its standard deviation 22.6; the bounds are 5 of these
// away. Text and file systems are in the tens of thousands and above, compressed
// data some hundred over.
func random(b []byte) bool {
	var seen [256]int
	for _, c := range b {
		seen[c]++
	}
	each := float64(len(b)) / 256
	var chi float64
	for _, n := range seen {
		chi += (float64(n) - each) * (float64(n) - each) / each
	}
	return chi > 142 && chi < 368
}

// holdsCipher reports whether a block device, by its folder in sysfs, looks
// encrypted, and whether it could be looked at.
func (b *blocks) holdsCipher(dir string) (encrypted, ok bool) {
	begin, err := bounded(b.guard, func() []byte {
		head, err := readUpTo(filepath.Join(b.dev, filepath.Base(dir)), sniffed)
		if err != nil {
			return nil
		}
		return head
	})
	return cipher(begin) != "", err == nil && len(begin) > 0
}
