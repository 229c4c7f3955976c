package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"sekisho/internal/alert"
	"sekisho/internal/endpoint"
	"sekisho/internal/winacl"
	"sekisho/internal/winlog"
)

// windowsPC is what was found out about a Windows PC (doctor_windows.go); what it
// means is decided here, on every system alike.
type windowsPC struct {
	version struct {
		major, minor, build uint32
		server              bool
	}
	elevated bool // whoever asks has administrator's rights
	service  windowsService
	places   []placeChecked
	// signed and signer are as procwatch.Signature tells of the agent's own program.
	signed, signer string

	sealing error // of a round trip through DPAPI
	tracing error // of starting and ending an ETW session
	devices error // of notifications of the configuration manager
	logs    []logChecked
	source  bool // the source of events is registered
}

// windowsService is how the service is set up; an error stands for what could not
// be read.
type windowsService struct {
	err         error // it could not be looked at; errNoService: there is none
	automatic   bool
	account     string // "LocalSystem"
	restarts    []time.Duration
	resetAfter  time.Duration
	afterErrors bool // it is started again, too, when it ended by itself with an error
	recovery    error
	changer     string // who but administrators may stop or change it
	access      error
	privileges  []string
	rights      error
}

var errNoService = errors.New("the service is not installed")

// placeChecked is a file or folder that only administrators should change.
type placeChecked struct {
	path  string
	rules bool  // of settings' rules.paths: the agent works with them all the same
	err   error // a *winacl.Trouble, or why it could not be looked at
}

// logChecked is an event log of Windows that a sensor reads.
type logChecked struct {
	watchedLog
	on  bool
	err error
}

// watchedLog is an event log and what is missed without it.
type watchedLog struct{ channel, ja, en string }

// watchedLogs are the event logs that sensors read or that say more where they are
// written.
var watchedLogs = []watchedLog{
	{"Microsoft-Windows-TerminalServices-LocalSessionManager/Operational", "ログオンと遠隔ログオンの相手", "logons and where remote ones come from"},
	{"Microsoft-Windows-Partition/Diagnostic", "エージェントの停止中につながれた USB ドライブ", "USB drives that were there while the agent was not"},
	{"Microsoft-Windows-PrintService/Operational", "印刷", "prints"},
	{"Security", "監査ポリシーで記録されるプロセスと機器", "processes and devices, where the audit policy asks for them"},
}

// oldest is the build of Windows 10 1607 and Windows Server 2016, the oldest that
// the agent is meant for.
const oldest = 14393

// windows judges what was found.
func (d *doctor) windows(pc windowsPC) {
	d.windowsVersion(pc)
	d.windowsService(pc.service, pc.elevated)
	for _, p := range pc.places {
		d.place(p)
	}
	d.signature(pc.signed, pc.signer)
	d.works("DOC-16", "鍵とトークンの保護（DPAPI）", "sealing of keys and tokens (DPAPI)", pc.sealing, CheckFailed,
		"この PC の鍵で封じ、開けた", "sealed and opened by a key of this PC",
		"イベントログ「システム」で、サービス CryptSvc と Windows の暗号の問題を調べる", "look for trouble of the service CryptSvc and of Windows' cryptography in the log \"System\"")
	nextJA, nextEN := "ほかの監視製品のセッションが多すぎないか `logman query -ets` で調べる。その間は定期的な確認で見張る（docs/limits.md）", "see by `logman query -ets` whether other products hold too many sessions; meanwhile polling watches (docs/limits.md)"
	if !pc.elevated {
		nextJA, nextEN = "管理者として実行すると分かる", "run this as administrator to know"
	}
	d.works("DOC-17", "イベントトレース（ETW）", "event tracing (ETW)", pc.tracing, CheckWarning, "セッションを開始できる", "sessions can be started", nextJA, nextEN)
	for _, l := range pc.logs {
		d.eventLog(l, pc.elevated)
	}
	d.works("DOC-19", "機器の通知", "device notifications", pc.devices, CheckWarning, "Windows がすぐに知らせる", "Windows tells at once",
		"毎秒の確認で見張る（docs/limits.md）。Windows 8 以降ならば起きない", "polling every second watches instead (docs/limits.md); Windows 8 and newer have them")
	switch {
	case errors.Is(pc.service.err, errNoService):
	case pc.source:
		d.add("DOC-20", "イベントログへの記録", "notes in the event log", CheckOK, "ログ「アプリケーション」のソース "+EventSource, "source "+EventSource+" of the log \"Application\"", "", "")
	default:
		d.add("DOC-20", "イベントログへの記録", "notes in the event log", CheckWarning, "ソース "+EventSource+" が登録されていない", "the source "+EventSource+" is not registered",
			"MSI を修復する（msiexec /fa）か、`sekisho-agent service install` をやり直す", "repair the MSI (msiexec /fa), or do `sekisho-agent service install` again")
	}
}

// works adds a check that is right if there is no error.
func (d *doctor) works(code, ja, en string, err error, else_ CheckResult, okJA, okEN, nextJA, nextEN string) {
	if err == nil {
		d.add(code, ja, en, CheckOK, okJA, okEN, "", "")
		return
	}
	d.add(code, ja, en, else_, "使えない（"+err.Error()+"）", "does not work: "+err.Error(), nextJA, nextEN)
}

func (d *doctor) windowsVersion(pc windowsPC) {
	v := pc.version
	name := fmt.Sprintf("Windows %d.%d.%d", v.major, v.minor, v.build)
	if v.major == 10 {
		switch {
		case v.server:
			name = fmt.Sprintf("Windows Server (%d.%d.%d)", v.major, v.minor, v.build)
		case v.build >= 22000: // the first of Windows 11
			name = fmt.Sprintf("Windows 11 (%d.%d.%d)", v.major, v.minor, v.build)
		default:
			name = fmt.Sprintf("Windows 10 (%d.%d.%d)", v.major, v.minor, v.build)
		}
	}
	if v.major < 10 || v.major == 10 && v.build < oldest {
		d.add("DOC-13", "Windows の版", "version of Windows", CheckWarning, name+" では試していない", name+" is older than what the agent is tested with",
			"Windows 10 1607、Windows Server 2016 以降で使う", "use Windows 10 1607, Windows Server 2016 or newer")
		return
	}
	d.add("DOC-13", "Windows の版", "version of Windows", CheckOK, name, name, "", "")
}

func (d *doctor) windowsService(s windowsService, elevated bool) {
	const ja, en = "サービスの設定", "set-up of the service"
	if errors.Is(s.err, errNoService) {
		d.add("DOC-14", ja, en, CheckWarning, "サービスとして登録されていない。PC を再起動すると見張られない", "not installed as a service: after a restart this PC is not watched",
			"MSI で導入するか、`sekisho-agent service install`", "install the MSI, or `sekisho-agent service install`")
		return
	}
	before := len(d.checks)
	unread := []error{s.recovery, s.access, s.rights}
	if s.err != nil {
		unread = []error{s.err}
	}
	if err := errors.Join(unread...); err != nil {
		nextJA, nextEN := "管理者として実行する", "run as administrator"
		if elevated {
			nextJA, nextEN = "`sc.exe qc`、`sc.exe qfailure`、`sc.exe sdshow` で調べる", "look by `sc.exe qc`, `sc.exe qfailure`, `sc.exe sdshow`"
		}
		why := strings.ReplaceAll(err.Error(), "\n", "; ")
		d.add("DOC-14", ja, en, CheckWarning, "調べられない（"+why+"）", "cannot be looked at: "+why, nextJA, nextEN)
	}
	if s.err != nil {
		return
	}
	const againJA, againEN = "サービスを再起動すると、エージェントが設定し直す（`sekisho-agent service restart`）", "the agent sets it right at its start: `sekisho-agent service restart`"
	if !s.automatic {
		d.add("DOC-14", ja, en, CheckFailed, "自動で開始しない", "does not start by itself", "`sc.exe config "+ServiceName+" start= auto`", "`sc.exe config "+ServiceName+" start= auto`")
	}
	if !strings.EqualFold(s.account, "LocalSystem") {
		d.add("DOC-14", ja, en, CheckFailed, s.account+" として動くので、見えないものがある", "runs as "+s.account+" and does not see everything", "`sc.exe config "+ServiceName+" obj= LocalSystem`", "`sc.exe config "+ServiceName+" obj= LocalSystem`")
	}
	if s.changer != "" {
		d.add("DOC-14", ja, en, CheckFailed, s.changer+" がサービスを止めるか変えることができる", s.changer+" may stop or change it", againJA, againEN)
	}
	if s.recovery == nil && (!slices.Equal(s.restarts, ServiceRestarts) || s.resetAfter != ServiceResetAfter || !s.afterErrors) {
		d.add("DOC-14", ja, en, CheckWarning, "異常終了の後の再起動が決めたとおりでない", "is not started again after failures as it should be", againJA, againEN)
	}
	if s.rights == nil && len(s.privileges) > 0 && !subset(ServicePrivileges, s.privileges) {
		d.add("DOC-14", ja, en, CheckWarning, "特権が足りない: "+strings.Join(s.privileges, ", "), "has too few privileges: "+strings.Join(s.privileges, ", "), againJA, againEN)
	}
	if len(d.checks) == before {
		d.add("DOC-14", ja, en, CheckOK, "自動で開始し、異常終了の 5・30・60 秒後に再び開始する。利用者は止められない", "starts by itself, and again 5, 30 and 60 s after failures; users cannot stop it", "", "")
	}
}

// splitTexts reads a list of texts as Windows has it (REG_MULTI_SZ): each with its
// NUL, and one more.
func splitTexts(all []uint16) (texts []string) {
	for {
		n := slices.Index(all, 0)
		if n <= 0 {
			return texts
		}
		texts = append(texts, string(utf16.Decode(all[:n])))
		all = all[n+1:]
	}
}

// subset reports whether all of these are in those.
func subset(these, those []string) bool {
	return !slices.ContainsFunc(these, func(s string) bool { return !slices.Contains(those, s) })
}

func (d *doctor) place(p placeChecked) {
	ja, en := "書き込める人 "+p.path, "who may write "+p.path
	var t *winacl.Trouble
	switch {
	case p.err == nil:
		d.add("DOC-15", ja, en, CheckOK, "管理者だけ", "administrators only", "", "")
	case errors.As(p.err, &t) && p.rules:
		why := openRulesText(t)
		d.add("DOC-15", ja, en, CheckWarning, why.JA, why.EN, "管理者だけが書き込めるフォルダーにルールを移す", "move the rules into a folder that only administrators may write")
	case errors.As(p.err, &t):
		d.add("DOC-15", ja, en, CheckFailed, t.Text("ja"), t.Text("en"), "直すまでエージェントは開始しない", "the agent does not start until that is done")
	default:
		d.add("DOC-15", ja, en, CheckWarning, "調べられない（"+p.err.Error()+"）", "cannot be looked at: "+p.err.Error(), "管理者として実行する", "run as administrator")
	}
}

// everybody is who may change what anybody may.
const everybody = "everybody"

// openRulesText says who may change rules.
func openRulesText(t *winacl.Trouble) alert.Text {
	text := "rules in " + t.Path + ": " + t.Who + ", no administrator, may change them"
	switch {
	case t.Kind == winacl.Linked:
		text = "rules in " + t.Path + ": it is a link, and who may change where it leads to is not known"
	case t.Who == everybody:
		text = "rules in " + t.Path + ": everybody may change them"
	}
	return alert.Text{JA: endpoint.Why(text, "ja"), EN: text}
}

// signature judges the signature of the agent's own program.
func (d *doctor) signature(status, signer string) {
	const code, ja, en = "DOC-21", "エージェントの署名", "signature of the agent"
	switch status {
	case "trusted":
		d.add(code, ja, en, CheckOK, "署名者 "+signer, "signed by "+signer, "", "")
	case "unsigned":
		d.add(code, ja, en, CheckWarning, "署名がない", "is not signed", "署名のある MSI で入れ直す", "install it anew by an MSI that is signed")
	case "untrusted-root":
		d.add(code, ja, en, CheckWarning, "この PC が信頼していない証明書で署名されている", "is signed by a certificate that this PC does not trust",
			"自分たちの証明書なら、グループポリシーで「信頼されたルート証明機関」に配る", "if the certificate is your own, distribute it to \"Trusted Root Certification Authorities\" by group policy")
	case "", "not-checked":
		d.add(code, ja, en, CheckWarning, "調べられない", "cannot be checked", "エクスプローラーのプロパティ「デジタル署名」で調べる", "look at \"Digital Signatures\" among its properties in Explorer")
	default:
		d.add(code, ja, en, CheckFailed, "署名が正しくない（"+status+"）", "its signature is not valid: "+status, "プログラムが変えられたおそれがある。調べてから、署名のある MSI で入れ直す", "somebody may have changed the program: find out, then install it anew by an MSI that is signed")
	}
}

func (d *doctor) eventLog(l logChecked, elevated bool) {
	ja, en := "イベントログ "+l.channel, "event log "+l.channel
	switch {
	case l.err == nil && l.on:
		d.add("DOC-18", ja, en, CheckOK, "記録されている: "+l.ja, "is written: "+l.en, "", "")
	case l.err == nil:
		d.add("DOC-18", ja, en, CheckWarning, "記録されていないので、見えない: "+l.ja, "is switched off, so not seen: "+l.en,
			"必要なら管理者として `"+winlog.Command(l.channel)+"`", "if you want it, as administrator: `"+winlog.Command(l.channel)+"`")
	case elevated:
		d.add("DOC-18", ja, en, CheckWarning, "読めないので、見えない: "+l.ja+"（"+l.err.Error()+"）", "cannot be read, so not seen: "+l.en+" ("+l.err.Error()+")",
			"docs/limits.md に、何が見えなくなるかがある", "docs/limits.md tells what is not seen then")
	default:
		d.add("DOC-18", ja, en, CheckWarning, "調べられない（"+l.err.Error()+"）", "cannot be looked at: "+l.err.Error(), "管理者として実行する", "run as administrator")
	}
}
