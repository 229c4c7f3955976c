package fileaudit

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"io"
	"slices"
	"strings"
	"time"

	"sekisho/internal/event"
)

const (
	// sampleBlock is how much of a file is read at its beginning, in its middle
	// and at its end: a page, which after reading or writing is in memory.
	sampleBlock = 4096
	// maxSamples bounds the samples taken in a second by one reader; at some 5 us
	// each this is 1 % of a core. Files beyond it have no content evidence.
	maxSamples = 2000
)

// wholeSample is the size, in bytes, up to which a sample is of the whole file.
const wholeSample = 3 * sampleBlock

// sample is what was seen of a file's content. The zero value is of a file that
// was not looked into.
type sample struct {
	size      int64
	sum       uint64 // keyed hash of size and blocks, never 0
	archive   bool   // an archive, or a file that was packed or encrypted
	encrypted event.Opt[bool]
}

// sampleSeed keys the hash, so that nobody outside can make files that look the
// same; it lives as long as the program.
var sampleSeed = maphash.MakeSeed()

// sampler takes samples, so many in a second. It has one user at a time.
type sampler struct {
	buf    [wholeSample]byte
	second time.Time
	taken  int
}

// take looks into a file; false if it may not now, or cannot.
func (s *sampler) take(f io.ReaderAt, size int64, now time.Time) (sample, bool) {
	if now.Sub(s.second) >= time.Second || now.Before(s.second) {
		s.second, s.taken = now, 0
	}
	if s.taken++; s.taken > maxSamples || size <= 0 {
		return sample{}, false
	}
	blocks := []int64{0}
	n := int64(sampleBlock)
	if size <= int64(len(s.buf)) {
		n = size
	} else {
		blocks = []int64{0, size / 2, size - sampleBlock}
	}
	var h maphash.Hash
	h.SetSeed(sampleSeed)
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(size))
	_, _ = h.Write(b[:])
	read := s.buf[:0]
	for _, off := range blocks {
		part := s.buf[len(read) : len(read)+int(n)]
		if m, err := f.ReadAt(part, off); m < len(part) || err != nil && err != io.EOF {
			return sample{}, false
		}
		read = s.buf[:len(read)+int(n)]
	}
	_, _ = h.Write(read)
	head, tail := read, read
	if len(blocks) > 1 {
		head, tail = read[:sampleBlock], read[2*sampleBlock:]
	}
	archive, encrypted := sniff(head, tail, size)
	return sample{size, max(h.Sum64(), 1), archive, encrypted}, true
}

// magics are what packed files begin with, and whether that says that they are
// encrypted. zip, 7z, rar and tar are looked at more closely.
var magics = []struct {
	magic     string
	encrypted bool
}{
	{"\x1f\x8b\x08", false},         // gzip (RFC 1952)
	{"BZh", false},                  // bzip2
	{"\xfd7zXZ\x00", false},         // xz
	{"\x28\xb5\x2f\xfd", false},     // zstd (RFC 8878)
	{"\x04\x22\x4d\x18", false},     // lz4 frame
	{"LZIP", false},                 // lzip
	{"!<arch>\n", false},            // ar
	{"070701", false},               // cpio, new ASCII form
	{"070702", false},               // the same with checksums
	{"\xc7\x71", false},             // cpio, old binary form
	{"MSCF\x00\x00\x00\x00", false}, // cabinet
	{"age-encryption.org/", true},
	{"Salted__", true}, // openssl enc
	{"-----BEGIN PGP MESSAGE-----", true},
}

// sniff says whether a file is an archive, or packed or encrypted as a whole, by
// its first and its last bytes, and whether it is encrypted as far as they tell.
// Documents that are zip files inside (OOXML, ODF, jar) are none.
func sniff(head, tail []byte, size int64) (archive bool, encrypted event.Opt[bool]) {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return true, event.Some(m.encrypted)
		}
	}
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return sniffZip(head, tail)
	case bytes.HasPrefix(head, []byte("7z\xbc\xaf\x27\x1c")):
		return true, sniff7z(head, tail, size)
	case bytes.HasPrefix(head, []byte("Rar!\x1a\x07\x01\x00")):
		// Block: CRC32, size and type as varints; type 4 encrypts all that follows.
		b := head[8:]
		if len(b) > 4 {
			b = b[4:]
			if _, n := binary.Uvarint(b); n > 0 {
				if typ, n := binary.Uvarint(b[n:]); n > 0 && typ == 4 {
					return true, event.Some(true)
				}
			}
		}
		return true, event.Opt[bool]{}
	case bytes.HasPrefix(head, []byte("Rar!\x1a\x07\x00")):
		// Main header: CRC16, type 0x73, flags; 0x0080 encrypts the headers.
		if len(head) >= 12 && head[9] == 0x73 && binary.LittleEndian.Uint16(head[10:])&0x80 != 0 {
			return true, event.Some(true)
		}
		return true, event.Opt[bool]{}
	case len(head) >= 263 && string(head[257:262]) == "ustar":
		return true, event.Some(false)
	}
	return false, event.Opt[bool]{}
}

// documents are the names with which files begin that are zip files inside, but
// no archives to their user.
var documents = []string{"[Content_Types].xml", "mimetype", "META-INF/", "_rels/", "docProps/", "word/", "xl/", "ppt/", "AndroidManifest.xml"}

// sniffZip follows the local headers in head and finds central headers in tail
// (APPNOTE.TXT 4.3.7, 4.3.12): bit 0 of an entry's flags says encrypted.
func sniffZip(head, tail []byte) (archive bool, encrypted event.Opt[bool]) {
	le := binary.LittleEndian
	entry := func(flags uint16, name []byte) {
		if len(name) > 0 && name[len(name)-1] == '/' {
			return // folders are never encrypted
		}
		encrypted = event.Some(encrypted.V || flags&1 != 0)
	}
	for first, b := true, head; len(b) >= 30 && bytes.HasPrefix(b, []byte("PK\x03\x04")); first = false {
		flags, packed := le.Uint16(b[6:]), uint64(le.Uint32(b[18:]))
		n, extra := int(le.Uint16(b[26:])), int(le.Uint16(b[28:]))
		name := b[30:min(30+n, len(b))]
		if first && slices.ContainsFunc(documents, func(d string) bool { return strings.HasPrefix(string(name), d) }) {
			return false, event.Opt[bool]{}
		}
		entry(flags, name)
		next := 30 + uint64(n) + uint64(extra) + packed
		if flags&8 != 0 || next >= uint64(len(b)) { // the size comes after the data
			break
		}
		b = b[next:]
	}
	for {
		i := bytes.Index(tail, []byte("PK\x01\x02"))
		if i < 0 || len(tail) < i+46 {
			return true, encrypted
		}
		b := tail[i:]
		n := int(le.Uint16(b[28:]))
		entry(le.Uint16(b[8:]), b[46:min(46+n, len(b))])
		tail = b[46:]
	}
}

// sniff7z looks for AES among the coders of the header at the end (7zFormat.txt,
// Methods.txt: 06 F1 07 01). A packed header hides those of the files.
func sniff7z(head, tail []byte, size int64) event.Opt[bool] {
	if len(head) < 32 {
		return event.Opt[bool]{}
	}
	// Where the header begins, from the end of the file.
	off := binary.LittleEndian.Uint64(head[12:])
	if off > uint64(size) || size < 32 {
		return event.Opt[bool]{}
	}
	back := size - 32 - int64(off)
	if back <= 0 || back > int64(len(tail)) {
		return event.Opt[bool]{}
	}
	header := tail[int64(len(tail))-back:]
	switch {
	case bytes.Contains(header, []byte{0x06, 0xf1, 0x07, 0x01}):
		return event.Some(true)
	case header[0] == 1: // kHeader, else kEncodedHeader
		return event.Some(false)
	}
	return event.Opt[bool]{}
}

// packers are programs that make one or more files of what they read: archives,
// packed, encrypted, joined or split files.
var packers = map[string]bool{
	"zip": true, "7z": true, "7za": true, "7zr": true, "7zz": true, "rar": true, "tar": true, "gtar": true, "bsdtar": true, "bsdcpio": true,
	"cpio": true, "pax": true, "ar": true, "jar": true, "star": true, "genisoimage": true, "mkisofs": true, "xorriso": true, "mksquashfs": true,
	"gzip": true, "pigz": true, "bzip2": true, "pbzip2": true, "lbzip2": true, "xz": true, "pixz": true, "zstd": true, "lz4": true, "lzip": true, "brotli": true,
	"gpg": true, "gpg2": true, "age": true, "rage": true, "openssl": true, "ccrypt": true, "ccencrypt": true, "base64": true, "uuencode": true, "xxd": true,
	"split": true, "csplit": true, "cat": true, "tac": true, "head": true, "tail": true, "dd": true, "tee": true,
	"winrar": true, "7zg": true, "7zfm": true, "winzip32": true, "winzip64": true, "wzzip": true, "peazip": true, "pea": true, "nanazip": true, "nanazipg": true, "nanazipc": true,
	"bandizip": true, "bz": true, "lhaplus": true, "cubeice": true, "cubeice-archive": true, "explzh": true, "noah": true, "lhaz": true, "makecab": true, "attachecase": true, "kleopatra": true,
	// The other way round.
	"unzip": true, "unrar": true, "unar": true, "7zcat": true,
}

// shells start programs whose output they open.
var shells = map[string]bool{"sh": true, "dash": true, "bash": true, "zsh": true, "ksh": true, "mksh": true, "ash": true, "fish": true, "cmd": true, "powershell": true, "pwsh": true}

// movers are programs that copy files as they are, many for one user over a long
// time: an archive that one of them writes was not made of what it read before.
var movers = map[string]bool{
	"cp": true, "gcp": true, "mv": true, "gmv": true, "install": true, "ginstall": true, "rsync": true, "busybox": true, "gio": true, "mc": true,
	"nautilus": true, "nemo": true, "caja": true, "thunar": true, "Thunar": true, "dolphin": true, "pcmanfm": true, "pcmanfm-qt": true, "kioworker": true, "kioslave5": true,
	"explorer": true, "robocopy": true, "xcopy": true, "fastcopy": true, "fcp": true, "teracopy": true, "firefilecopy": true, "totalcmd": true, "totalcmd64": true, "bunbackup": true, "realsync": true,
}

// archiveNames are extensions of archives and of packed or encrypted files.
var archiveNames = map[string]bool{
	"zip": true, "7z": true, "rar": true, "tar": true, "gz": true, "tgz": true, "bz2": true, "tbz": true, "tbz2": true, "xz": true, "txz": true, "zst": true,
	"tzst": true, "lz4": true, "lz": true, "lzh": true, "cab": true, "iso": true, "cpio": true, "ar": true, "001": true,
	"gpg": true, "pgp": true, "asc": true, "age": true, "enc": true, "aes": true, "cpt": true,
}

// encrypts reports what the arguments of a program say of encryption, for what
// the file itself does not tell.
func encrypts(program string, args []string) event.Opt[bool] {
	if len(args) == 0 {
		return event.Opt[bool]{}
	}
	switch strings.TrimSuffix(strings.ToLower(program), ".exe") {
	case "7z", "7za", "7zr", "7zz", "rar":
		for _, a := range args[1:] {
			if a == "--" {
				break
			}
			if strings.HasPrefix(a, "-p") || strings.HasPrefix(a, "-hp") {
				return event.Some(true)
			}
		}
		return event.Some(false)
	case "gpg", "gpg2", "age", "rage", "ccrypt", "ccencrypt":
		return event.Some(true)
	}
	return event.Opt[bool]{}
}
