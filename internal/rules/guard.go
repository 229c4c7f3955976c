package rules

import (
	"regexp/syntax"
	"strings"
	"sync"
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

// usualGrams counts the groups of gramLen bytes in usual.
var usualGrams = sync.OnceValue(func() map[uint32]int {
	out := map[uint32]int{}
	for i := 0; i+gramLen <= len(usual); i++ {
		out[gramAt([]byte(usual), i)]++
	}
	return out
})

// commonness estimates how often folded texts hold a literal; 0.01 stands for
// seldom.
func commonness(lit string) float64 {
	if len(lit) < gramLen {
		return float64(strings.Count(usual, lit)) + 2
	}
	least, counts := 1<<30, usualGrams()
	for i := 0; i+gramLen <= len(lit); i++ {
		least = min(least, counts[gramAt([]byte(lit), i)])
	}
	return float64(least) + 0.01
}

// need is what any text that an expression matches must hold, case folded:
// a cheap reason not to run the expression.
type need struct {
	size  int       // bytes
	chars [2]uint64 // all of these ASCII characters
	any   []string  // one of these, each of gramLen bytes or more; none: nothing known
}

// maxNeedAny bounds the texts of which one is needed; more say little.
const maxNeedAny = 64

// needOf works out what an expression needs. Folding is by character, so what a
// text holds is, folded, in the folded text.
func needOf(re *syntax.Regexp) need {
	n := need{size: leastLength(re)}
	n.chars, n.any = needed(re)
	return n
}

func needed(re *syntax.Regexp) (chars [2]uint64, any []string) {
	switch re.Op {
	case syntax.OpLiteral:
		return literalNeeds(string(re.Rune))
	case syntax.OpCapture, syntax.OpPlus:
		return needed(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return needed(re.Sub[0])
		}
	case syntax.OpConcat:
		for _, s := range re.Sub {
			c, a := needed(s)
			chars[0], chars[1] = chars[0]|c[0], chars[1]|c[1]
			if len(a) > 0 && (len(any) == 0 || commonest(a) < commonest(any)) {
				any = a
			}
		}
	case syntax.OpAlternate:
		for i, s := range re.Sub {
			c, a := needed(s)
			if i == 0 {
				chars, any = c, a
				continue
			}
			chars[0], chars[1] = chars[0]&c[0], chars[1]&c[1]
			if len(a) == 0 || len(any) == 0 || len(any)+len(a) > maxNeedAny {
				any = nil
			} else {
				any = append(any[:len(any):len(any)], a...)
			}
		}
	}
	return chars, any
}

func literalNeeds(lit string) (chars [2]uint64, any []string) {
	if strings.ContainsRune(lit, utf8.RuneError) { // it matches broken bytes too
		return chars, nil
	}
	lit = fold(lit)
	for i := range len(lit) {
		if c := lit[i]; c < utf8.RuneSelf {
			chars[c>>6] |= 1 << (c & 63)
		}
	}
	if len(lit) >= gramLen {
		any = []string{lit}
	}
	return chars, any
}

func commonest(lits []string) float64 {
	sum := 0.0
	for _, l := range lits {
		sum += commonness(l)
	}
	return sum
}
