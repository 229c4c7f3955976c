package endpoint

import (
	"fmt"
	"regexp"
	"strings"
)

// Why is the reason of a sensor's state in a language, "ja" or else English.
func (s *Sensor) Why(lang string) string { return Why(s.Reason, lang) }

// Why is what a sensor says of itself, in its state or in the message of an event, or
// the agent of its rules, in a language, "ja" or else English. What the system said stands in it as it is, and so
// does what is not known here, as of another version.
func Why(reason, lang string) string {
	if lang != "ja" {
		return reason
	}
	return japanese(reason, 0)
}

// said is what sensors say, in the form they say it with, and in Japanese. What is put
// in is of this list itself or said as it is.
var said = []struct{ en, ja string }{
	// Any.
	{"switched off in the settings", "設定で無効になっています"},
	{"switched off in the settings; runs for the file sensor only", "設定で無効になっています（ファイルのセンサーのためにだけ動いています）"},
	{"not running", "動いていません"},
	{"not started", "まだ始まっていません"},
	{"it says that it works and has not proven it the last %d times, within %v each: it may be blind, and is started again; if this stays, run sekisho-agent doctor and restart the service",
		"働いていると言いながら、続けて %[1]s 回、%[2]s 以内にそれを確かめられませんでした。見えていないおそれがあるので、始め直しています。続くときは sekisho-agent doctor を実行し、サービスを再起動してください"},

	// USB.
	{"kernel notifications refused (%v); sysfs is looked through each %v, shorter visits are missed", "カーネルの通知を受けられません（%[1]s）。sysfs を %[2]s ごとに調べるので、それより短い接続は見逃します"},
	{"in a user namespace the kernel does not announce devices", "ユーザー名前空間の中では、カーネルが機器を知らせません"},
	{"devices are announced, but sysfs does not say what they are", "機器の接続は通知されますが、sysfs からその種類が分かりません"},
	{"devices are announced, but sysfs cannot be read: %v", "機器の接続は通知されますが、sysfs を読めません: %[1]s"},
	{"without CAP_NET_ADMIN the kernel keeps %d KiB of device notifications for the agent, not %d: of many devices at once those that leave soon may be missed",
		"CAP_NET_ADMIN がないため、カーネルがエージェントのために溜める機器の通知は %[2]s KiB でなく %[1]s KiB です。多くの機器が同時に着脱されると、すぐに外されたものを見逃すことがあります"},
	{"no USB bus on this machine; listening for one", "この PC には USB がありません（現れるのを待っています）"},
	{"only storage with a drive letter is seen, by looking at the drives each second: ", "ドライブを毎秒調べ、ドライブ文字のある記憶装置だけを見ています: "},

	// Volumes.
	{"the kernel does not tell of changes to mountinfo; it is read each second, shorter visits are missed", "マウントの変化が通知されません。毎秒調べるので、それより短いマウントは見逃します"},
	{"%d lines of mountinfo are not understood; these mounts are not seen", "mountinfo に読めない行が %[1]s 行あり、そのマウントは見えません"},
	{"drives are looked at each second, shorter visits are missed: ", "ドライブを毎秒調べるので、それより短い接続は見逃します: "},

	// Processes.
	{"programs that end within a few milliseconds can lack their arguments: %v", "数ミリ秒で終わるプログラムは、引数が分からないことがあります: %[1]s"},
	{"programs that end within a few milliseconds can lack their path and arguments: %v; %v", "数ミリ秒で終わるプログラムは、パスと引数が分からないことがあります: %[1]s、%[2]s"},
	{"processes that live shorter than %v can be missed: %v", "%[1]s より短いプロセスは見逃すことがあります: %[2]s"},

	// Files.
	{"inotify: no process, no reads, may miss files in fresh folders: %v", "inotify で見ています。プロセスと読み取りは分からず、新しいフォルダーの中のファイルを見逃すことがあります: %[1]s"},
	{"watch %s: %v", "%[1]s を監視できません: %[2]s"},
	{"file system does not answer", "ファイルシステムが応答しません"},
	{"look for what was lost on %s: %v", "%[1]s で、失われた分を探し直せません: %[2]s"},
	{"watch removable media: %v", "媒体を監視できません: %[1]s"},
	{"watch local disks: %v", "内蔵ディスクを監視できません: %[1]s"},
	{"protected places have more than %d folders, reads in the rest are not seen", "守る場所のフォルダーが %[1]s 個を超えました。残りでの読み取りは見えません"},

	// Logons.
	{"no systemd-logind (%v); %s", "systemd-logind がありません（%[1]s）。%[2]s"},
	{"and no records of logons (%v; %v): nothing is seen", "ログオンの記録もなく（%[1]s、%[2]s）、何も見えません"},
	{"looked at %s every %v (%v): shorter sessions are missed; locks of the screen and idle desktops are not seen", "%[1]s を %[2]s ごとに調べるので（%[3]s）、それより短いセッションは見逃します。画面のロックと、デスクトップの放置は見えません"},
	{"logons are read from %s every %v; locks of the screen and idle desktops are not seen", "%[1]s を %[2]s ごとに読みます。画面のロックと、デスクトップの放置は見えません"},
	{"this Windows lists no sessions", "この Windows はセッションの一覧を返しません"},
	{"sessions are looked at every %v; shorter ones, and from where remote ones really come, are not seen: %v", "セッションを %[1]s ごとに調べるので、それより短いものと、遠隔のセッションの本当の接続元は見えません: %[2]s"},

	// The agent.
	{"without %s not everything can be seen", "%[1]s がないので、見えないものがあります"},
	{"the agent was killed; nobody watched from %s to %s (%v): what began and ended meanwhile is not known", "エージェントが強制終了されました。%[1]s から %[2]s まで（%[3]s）見ていません。その間に始まって終わったことは分かりません"},
	{"the agent was killed, and the clock was set back since: nobody watched for a time that is not known", "エージェントが強制終了され、その後に時計が戻されました。見ていなかった時間の長さは分かりません"},

	// Rules.
	{"rules in %s: everybody may change them", "ルールの %[1]s は、だれでも変えられます"},
	{"rules in %s: %s, no administrator, may change them", "ルールの %[1]s は、管理者でない %[2]s が変えられます"},
	{"rules in %s: it is a link, and who may change where it leads to is not known", "ルールの %[1]s はリンクで、指している先を誰が変えられるか分かりません"},
	{"the group %s", "グループ %[1]s "},
	{"somebody named in its access list", "アクセス制御リストにある誰か"},

	// Prints.
	{"the log was switched on just now; it is read within half a minute", "ログを今、有効にしました。30 秒以内に読み始めます"},
	{"%v; with sensors.print.enable_log: true in the settings the agent does", "%[1]s（設定 sensors.print.enable_log: true で、エージェントが有効にします）"},
	{"prints are seen on Windows only: %v", "印刷は Windows でだけ見えます: %[1]s"},
}

// forms are the patterns of said, in its order.
var forms = func() (all []*regexp.Regexp) {
	for _, x := range said {
		form := verbs.ReplaceAllString(regexp.QuoteMeta(x.en), "(.+?)")
		if strings.HasSuffix(x.en, ": ") {
			form += "(.+)"
		}
		all = append(all, regexp.MustCompile(`(?s)^`+form+`$`))
	}
	return all
}()

var verbs = regexp.MustCompile(`%[vsd]`)

// Bounds of what is looked through: a console shows what a PC says that is nobody's friend.
const (
	maxReason = 4 << 10 // bytes
	maxWithin = 6       // one within the other
)

// japanese says what sensors say in Japanese, as far as it is known.
func japanese(text string, depth int) string {
	if len(text) > maxReason || depth == maxWithin {
		return text
	}
	for i, form := range forms {
		m := form.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		args := make([]any, len(m)-1)
		for j, part := range m[1:] {
			args[j] = japanese(part, depth+1)
		}
		switch ja := said[i].ja; {
		case len(args) == 0:
			return ja
		case strings.HasSuffix(said[i].en, ": "):
			return ja + args[0].(string)
		default:
			return fmt.Sprintf(ja, args...)
		}
	}
	if first, rest, more := strings.Cut(text, "; "); more { // several in a row
		if a, b := japanese(first, depth+1), japanese(rest, depth+1); a != first || b != rest {
			return a + "、" + b
		}
	}
	return text
}
