package rules

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"regexp/syntax"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// usual is the kind of text that fields of process events hold mostly. Groups
// of bytes that it holds often make poor anchors, and rules that ask for no more
// than such are candidates often. It only decides what is looked for first,
// never what is found. Judgement: written down from what Windows and Linux
// machines start all day.
const usual = `c:\windows\system32\svchost.exe -k netsvcs -p -s schedule c:\windows\system32\cmd.exe c:\windows\system32\cmd.exe
"c:\windows\system32\windowspowershell\v1.0\powershell.exe" -noprofile -noninteractive -executionpolicy bypass -command "& {
powershell.exe -nop -w hidden -enc powershell.exe c:\windows\explorer.exe c:\windows\system32\cmd.exe /c "echo
c:\program files\microsoft office\root\office16\winword.exe /n "c:\users\user\appdata\local\temp\ c:\users\administrator\desktop\
c:\windows\system32\rundll32.exe c:\windows\system32\shell32.dll,control_rundll c:\windows\system32\conhost.exe 0xffffffff -forcev1
c:\program files (x86)\google\chrome\application\chrome.exe --type=renderer --enable-features= c:\windows\system32\reg.exe add
hklm\software\microsoft\windows\currentversion\run /v /t reg_sz /d /f c:\windows\system32\net.exe user c:\windows\system32\net1 localgroup
c:\windows\system32\schtasks.exe /create /sc /tn /tr c:\windows\system32\wbem\wmic.exe process call create cscript.exe wscript.exe
c:\windows\system32\services.exe c:\windows\system32\taskhostw.exe c:\programdata\microsoft\windows defender\platform\msmpeng.exe
nt authority\system \device\harddiskvolume c:\windows\syswow64\ c:\windows\temp\ c:\users\public\ {00000000-0000-0000-0000-000000000000}
microsoft corporation microsoft® windows® operating system windows powershell windows command processor powershell.exe cmd.exe
10.0.19041.1 (winbuild.160101.0800) md5= ,sha256= ,imphash= sha1= medium high system low integrity regsvr32.exe mshta.exe
http:// https://www.google.com/ .dll .exe .ps1 .bat .txt .log .vbs .js .tmp system.net.webclient invoke-expression new-object iex
/usr/bin/python3 /usr/lib/systemd/systemd /bin/sh -c /bin/bash /usr/sbin/cron /etc/ /var/log/ /home/user/ /tmp/ --config --help
`

// usualGroups counts the groups of two, three or four bytes in usual.
func usualGroups(width int) map[uint32]int { return allUsualGroups()[width] }

var allUsualGroups = sync.OnceValue(func() (out [gramLen + 1]map[uint32]int) {
	for width := 2; width <= gramLen; width++ {
		out[width] = map[uint32]int{}
		for _, text := range append(encodedUsual(), usual) {
			for i := 0; i+width <= len(text); i++ {
				out[width][groupAt(text, i, width)]++
			}
		}
	}
	return out
})

// encodedUsual is usual as PowerShell takes commands (-EncodedCommand): UTF-16 in
// base64, with case folded. A text comes out in three ways, by its place in what
// is encoded.
func encodedUsual() (out []string) {
	for before := range 3 {
		var text []byte
		for _, r := range strings.Repeat(" ", before) + usual {
			text = append(text, byte(r), byte(r>>8))
		}
		out = append(out, fold(base64.StdEncoding.EncodeToString(text)))
	}
	return out
}

// usualBytes counts the bytes in usual.
var usualBytes = sync.OnceValue(func() *[256]int {
	var out [256]int
	for i := range len(usual) {
		out[usual[i]]++
	}
	return &out
})

// commonness estimates how often folded texts hold a literal; 0.01 stands for
// seldom.
func commonness(lit string) float64 {
	if len(lit) < gramLen {
		return float64(strings.Count(usual, lit)) + 2
	}
	least, counts := 1<<30, usualGroups(gramLen)
	for i := 0; i+gramLen <= len(lit); i++ {
		least = min(least, counts[groupAt(lit, i, gramLen)])
	}
	return float64(least) + 0.01
}

// commonness estimates how often fields have the characters and the length.
func (k *charsKey) commonness() float64 {
	n := 2.0 // more than literals as seldom
	for line := range strings.Lines(usual) {
		var c charset
		c.add(line)
		if c.holds(&k.chars) {
			n += 10
		}
	}
	return n / float64(1+k.size/leastHint)
}

// charset is which ASCII characters occur in folded texts; bit 0 stands for all
// others.
type charset [2]uint64

func (c *charset) add(text string) {
	for i := range len(text) {
		b := text[i]
		if b >= utf8.RuneSelf {
			b = 0
		}
		c[b>>6&1] |= 1 << (b & 63)
	}
}

// addFolded is add for longer texts: what occurs is noted in bytes first.
func (c *charset) addFolded(text []byte) {
	if len(text) < 24 {
		for _, b := range text {
			if b >= utf8.RuneSelf {
				b = 0
			}
			c[b>>6&1] |= 1 << (b & 63)
		}
		return
	}
	var seen [256]uint8
	for ; len(text) >= 8; text = text[8:] {
		x := binary.LittleEndian.Uint64(text)
		seen[uint8(x)], seen[uint8(x>>8)], seen[uint8(x>>16)], seen[uint8(x>>24)] = 1, 1, 1, 1
		seen[uint8(x>>32)], seen[uint8(x>>40)], seen[uint8(x>>48)], seen[x>>56] = 1, 1, 1, 1
	}
	for _, b := range text {
		seen[b] = 1
	}
	for i := range 2 {
		for k := range 8 {
			// The product has the lowest bits of eight bytes in its highest byte.
			eight := binary.LittleEndian.Uint64(seen[64*i+8*k:]) * 0x0102040810204080 >> 56
			c[i] |= eight << (8 * k)
		}
	}
	for k := 128; k < 256; k += 8 {
		if binary.LittleEndian.Uint64(seen[k:]) != 0 {
			c[0] |= 1
			return
		}
	}
}

// holds reports whether all of sub is in c.
func (c *charset) holds(sub *charset) bool { return sub[0]&^c[0]|sub[1]&^c[1] == 0 }

func (c charset) union(d charset) charset  { return charset{c[0] | d[0], c[1] | d[1]} }
func (c charset) common(d charset) charset { return charset{c[0] & d[0], c[1] & d[1]} }

// need is what any text that an expression matches must hold, case folded:
// a cheap reason not to run the expression.
type need struct {
	size  int      // bytes
	chars charset  // all of these characters
	words [][]byte // one of these, where any is empty; none: nothing known
	any   []string // one of these, each of gramLen bytes or more; none: nothing known

	sets [][]string // of each of these sets one, of two bytes or more

	counts []byteCount // so often each of these bytes

	run *run // not folded; nil: nothing known

	// isLine says that a match is any run of this many characters, and nothing
	// else is asked.
	isLine  bool
	line    int
	newline bool // line feeds count
}

// longLine is how many characters an expression asks for in a row where that is
// all it asks for (".{1000,}"); ok is false for other expressions. newline says
// that line feeds count too.
func longLine(re *syntax.Regexp) (n int, newline, ok bool) {
	for re.Op == syntax.OpCapture {
		re = re.Sub[0]
	}
	if re.Op != syntax.OpRepeat || re.Max >= 0 {
		return 0, false, false
	}
	switch re.Sub[0].Op {
	case syntax.OpAnyChar:
		return re.Min, true, true
	case syntax.OpAnyCharNotNL:
		return re.Min, false, true
	}
	return 0, false, false
}

// run is n bytes of a set in a row.
type run struct {
	n  int
	of [256]bool
	// after says that a byte of before, of which none is in of, comes first.
	after  bool
	before [256]bool
}

// runIn is the longest run that every match has, should it be of leastRun or more
// ("[0-9a-f]{64}").
func runIn(re *syntax.Regexp) (longest *run) {
	switch re.Op {
	case syntax.OpCapture, syntax.OpPlus:
		return runIn(re.Sub[0])
	case syntax.OpConcat:
		for i, s := range re.Sub {
			r := runIn(s)
			if r == nil || longest != nil && longest.n >= r.n {
				continue
			}
			longest = r
			if i > 0 && s.Op == syntax.OpRepeat {
				var ok bool
				r.before, ok = bytesOf(re.Sub[i-1])
				r.after = ok && !r.overlaps()
			}
		}
		return longest
	case syntax.OpRepeat:
		if of, ok := bytesOf(re.Sub[0]); ok && re.Min >= leastRun {
			return &run{n: re.Min, of: of}
		}
	}
	return nil
}

// bytesOf is the bytes that an expression of one ASCII character matches.
func bytesOf(re *syntax.Regexp) (of [256]bool, ok bool) {
	class := re.Rune
	switch {
	case re.Op == syntax.OpLiteral && len(class) == 1 && re.Flags&syntax.FoldCase == 0:
		class = []rune{class[0], class[0]}
	case re.Op != syntax.OpCharClass:
		return of, false
	}
	for i := 0; i < len(class); i += 2 {
		for r := class[i]; r <= class[i+1]; r++ {
			if r >= utf8.RuneSelf {
				return of, false
			}
			of[r] = true
		}
	}
	return of, true
}

func (r *run) overlaps() bool {
	for c, is := range r.of {
		if is && r.before[c] {
			return true
		}
	}
	return false
}

// byteCount is how often a byte occurs.
type byteCount struct {
	c byte
	n int
}

// counted reports whether a text, not folded, has all bytes as often as needed.
func (n *need) counted(text []byte) bool {
	for _, x := range n.counts {
		if bytes.Count(text, []byte{x.c}) < x.n {
			return false
		}
	}
	return true
}

// countsOf adds how often every match has each ASCII character at least.
func countsOf(re *syntax.Regexp, counts *[utf8.RuneSelf]int) {
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			if r < utf8.RuneSelf && (re.Flags&syntax.FoldCase == 0 || unicode.SimpleFold(r) == r) {
				counts[r]++
			}
		}
	case syntax.OpCapture, syntax.OpPlus:
		countsOf(re.Sub[0], counts)
	case syntax.OpConcat:
		for _, s := range re.Sub {
			countsOf(s, counts)
		}
	}
}

// leastRun is the length of a run that is worth looking for. Judgement.
const leastRun = 6

// in reports whether a text has the run. It looks at every nth byte, and at those
// before it as long as they are in the set.
func (r *run) in(text []byte) bool {
	for i := r.n - 1; i < len(text); {
		k := 0
		for k < r.n && r.of[text[i-k]] {
			k++
		}
		if k < r.n {
			i += r.n - k
			continue
		}
		if !r.after {
			return true
		}
		from := i - k + 1
		for from > 0 && r.of[text[from-1]] {
			from--
		}
		if from > 0 && r.before[text[from-1]] {
			return true
		}
		for i < len(text) && r.of[text[i]] {
			i++
		}
		i += r.n
	}
	return false
}

// hasLine reports whether a text has n characters in a row.
func hasLine(text []byte, n int, newline bool) bool {
	for {
		line, rest, more := text, []byte(nil), false
		if !newline {
			line, rest, more = bytes.Cut(text, []byte{'\n'})
		}
		if len(line) >= n && (len(line) >= n*utf8.UTFMax || utf8.RuneCount(line) >= n) {
			return true
		}
		if !more {
			return false
		}
		text = rest
	}
}

// maxNeedAny bounds the texts of which one is needed; more say little.
const maxNeedAny = 64

// needOf works out what an expression needs. Folding is by character, so what a
// text holds is, folded, in the folded text.
func needOf(re *syntax.Regexp) need {
	n := need{size: leastLength(re)}
	n.line, n.newline, n.isLine = longLine(re)
	n.run = runIn(re)
	re = re.Simplify()
	var counts [utf8.RuneSelf]int
	countsOf(re, &counts)
	for c, k := range counts {
		if k > 1 {
			n.counts = append(n.counts, byteCount{byte(c), k})
		}
	}
	n.chars = needed(re)
	best := 0
	for _, set := range sets(re) {
		least := shortest(set)
		if least > 1 {
			n.sets = append(n.sets, set)
		}
		if least >= gramLen && (len(n.any) == 0 || commonest(set) < commonest(n.any)) {
			n.any = set
		}
		if least > best {
			best = least
			n.words = n.words[:0]
			for _, w := range set {
				n.words = append(n.words, []byte(w))
			}
		}
	}
	if len(n.any) > 0 {
		n.words = nil // finders know already
	}
	return n
}

// needed is the characters that every match has.
func needed(re *syntax.Regexp) (chars charset) {
	switch re.Op {
	case syntax.OpLiteral:
		if lit := string(re.Rune); !strings.ContainsRune(lit, utf8.RuneError) { // which matches broken bytes too
			chars.add(fold(lit))
		}
	case syntax.OpCapture, syntax.OpPlus:
		return needed(re.Sub[0])
	case syntax.OpConcat:
		for _, s := range re.Sub {
			chars = chars.union(needed(s))
		}
	case syntax.OpAlternate:
		chars = needed(re.Sub[0])
		for _, s := range re.Sub[1:] {
			chars = chars.common(needed(s))
		}
	}
	return chars
}

// spelled is all the texts that an expression matches, folded; nil where they
// are more than a few.
func spelled(re *syntax.Regexp) []string {
	switch re.Op {
	case syntax.OpEmptyMatch:
		return []string{""}
	case syntax.OpLiteral:
		if lit := string(re.Rune); !strings.ContainsRune(lit, utf8.RuneError) {
			return []string{fold(lit)}
		}
	case syntax.OpCharClass:
		var out []string
		for i := 0; i < len(re.Rune); i += 2 {
			for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
				if r == utf8.RuneError || len(out) == 8 {
					return nil
				}
				if c := fold(string(r)); !slices.Contains(out, c) {
					out = append(out, c)
				}
			}
		}
		return out
	case syntax.OpCapture:
		return spelled(re.Sub[0])
	case syntax.OpConcat:
		out := []string{""}
		for _, s := range re.Sub {
			if out = times(out, spelled(s)); out == nil {
				return nil
			}
		}
		return out
	case syntax.OpAlternate:
		var out []string
		for _, s := range re.Sub {
			x := spelled(s)
			if x == nil || len(out)+len(x) > maxNeedAny {
				return nil
			}
			out = append(out, x...)
		}
		return out
	}
	return nil
}

// times is each text of a followed by each of b; nil where they are too many.
func times(a, b []string) []string {
	if len(a)*len(b) > maxNeedAny {
		return nil
	}
	return each(a, b)
}

// each is each text of a followed by each of b.
func each(a, b []string) (out []string) {
	for _, x := range a {
		for _, y := range b {
			out = append(out, x+y)
		}
	}
	return out
}

// sets is sets of texts, of each of which every match has at least one.
func sets(re *syntax.Regexp) (out [][]string) {
	if s := spelled(re); s != nil {
		return [][]string{s}
	}
	switch re.Op {
	case syntax.OpCapture, syntax.OpPlus:
		return sets(re.Sub[0])
	case syntax.OpConcat:
		run := []string{""}
		for _, s := range re.Sub {
			more := times(run, spelled(s))
			if more != nil {
				run = more
				continue
			}
			// Of "x+" the first stands behind what is before, the last before what
			// follows.
			once := spelled(s)
			if s.Op == syntax.OpPlus {
				if once = spelled(s.Sub[0]); once != nil {
					if more := times(run, once); more != nil {
						run = more
					}
				}
			}
			out = append(out, run)
			if run = once; run == nil {
				run = []string{""}
				out = append(out, sets(s)...)
			}
		}
		return append(out, run)
	case syntax.OpAlternate:
		var one []string
		for _, s := range re.Sub {
			var best []string
			for _, x := range sets(s) {
				if best == nil || shortest(x) > shortest(best) {
					best = x
				}
			}
			if best == nil || len(one)+len(best) > maxNeedAny {
				return nil
			}
			one = append(one, best...)
		}
		return [][]string{one}
	}
	return nil
}

func shortest(texts []string) int {
	least := 1 << 30
	for _, t := range texts {
		least = min(least, len(t))
	}
	return least
}

func commonest(lits []string) float64 {
	sum := 0.0
	for _, l := range lits {
		sum += commonness(l)
	}
	return sum
}
