package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sekisho/internal/alert"
	"sekisho/internal/config"
	"sekisho/internal/endpoint"
	"sekisho/internal/enroll"
	"sekisho/internal/rules"
	"sekisho/internal/ship"

	"github.com/shirou/gopsutil/v3/disk"
	"github.com/shirou/gopsutil/v3/process"
)

// CheckResult is how a check of this PC came out.
type CheckResult string

// The results.
const (
	CheckOK      CheckResult = "ok"
	CheckWarning CheckResult = "warning"
	CheckFailed  CheckResult = "failed"
)

// Check is one check of this PC: what was found, and what to do about it.
type Check struct {
	Code   string      `json:"code"` // stable, "DOC-03"
	Name   alert.Text  `json:"name"`
	Result CheckResult `json:"result"`
	Why    alert.Text  `json:"why"`
	Next   alert.Text  `json:"next,omitzero"`
}

// minFree is how much room the spools' disk should have. Judgement: the alert
// spool and a day of activity.
const minFree = 512 << 20

// clockTolerance is how far the clock may be off: what shipping and Kerberos allow.
const clockTolerance = 5 * time.Minute

// Doctor checks what the agent needs on this PC: rights, settings, rules, room,
// the running service and its sensors, the way to the console, the clock, other
// products; on Windows what else a program can find out (doctor_pc.go). It changes
// nothing and asks only the console that is set.
func Doctor(ctx context.Context, configFile string) []Check {
	d := &doctor{}
	cfg := d.settings(configFile)
	if cfg == nil {
		return d.checks
	}
	d.rights()
	d.rules(cfg)
	d.room(cfg)
	d.running(ctx, cfg)
	d.console(ctx, cfg)
	d.system(configFile, cfg)
	d.neighbours()
	return d.checks
}

type doctor struct{ checks []Check }

func (d *doctor) add(code, ja, en string, r CheckResult, whyJA, whyEN, nextJA, nextEN string) {
	d.checks = append(d.checks, Check{code, alert.Text{JA: ja, EN: en}, r, alert.Text{JA: whyJA, EN: whyEN}, alert.Text{JA: nextJA, EN: nextEN}})
}

func (d *doctor) settings(file string) *config.Agent {
	cfg, err := loadSettings(file)
	if err != nil {
		ja, en := problemTexts(err)
		d.add("DOC-01", "設定", "settings", CheckFailed, ja, en,
			"`sekisho-agent check` で場所と直し方を見る", "run `sekisho-agent check`: it shows each place and what to do")
		return nil
	}
	d.add("DOC-01", "設定", "settings", CheckOK, file, file, "", "")
	return cfg
}

// problemTexts is the first problem of settings or rules, and how many more there
// are.
func problemTexts(err error) (ja, en string) {
	var ofSettings config.Problems
	var ofRules rules.Problems
	ja, en = err.Error(), err.Error()
	more := 0
	switch {
	case errors.As(err, &ofSettings) && len(ofSettings) > 0:
		ja, en, more = ofSettings[0].Message("ja"), ofSettings[0].Message("en"), len(ofSettings)-1
	case errors.As(err, &ofRules) && len(ofRules) > 0:
		ja, en, more = ofRules[0].Message("ja"), ofRules[0].Message("en"), len(ofRules)-1
	}
	if more > 0 {
		ja += fmt.Sprintf("（ほか %d 件）", more)
		en += fmt.Sprintf(" (and %d more)", more)
	}
	return ja, en
}

func (d *doctor) rights() {
	if privileged() {
		d.add("DOC-02", "権限", "rights", CheckOK, "管理者権限がある", "runs with administrator's rights", "", "")
		return
	}
	d.add("DOC-02", "権限", "rights", CheckWarning, "管理者権限がないため、見えないものがある", "without administrator's rights some things cannot be seen",
		"root（Windows では管理者）で実行する", "run as root (on Windows: as administrator)")
}

func (d *doctor) rules(cfg *config.Agent) {
	l, err := loadRules(cfg)
	if err != nil {
		ja, en := problemTexts(err)
		d.add("DOC-03", "ルール", "rules", CheckFailed, ja, en,
			"`sekisho-agent check` で場所と理由を見る", "run `sekisho-agent check`: it shows each place and reason")
		return
	}
	n := fmt.Sprint(l.active())
	d.add("DOC-03", "ルール", "rules", CheckOK, n+" 件が有効", n+" active", "", "")
}

func (d *doctor) room(cfg *config.Agent) {
	dir := cfg.StateDir
	probe := filepath.Join(dir, ".doctor")
	if err := os.WriteFile(probe, []byte("x"), 0o600); err != nil {
		d.add("DOC-04", "記録の場所", "state directory", CheckFailed, err.Error(), err.Error(),
			"state_dir の権限と空きを確かめる", "check the rights and room of state_dir")
		return
	}
	os.Remove(probe)
	u, err := disk.Usage(dir)
	switch {
	case err != nil:
		d.add("DOC-04", "記録の場所", "state directory", CheckWarning, err.Error(), err.Error(), "", "")
	case u.Free < minFree:
		free := fmt.Sprintf("%d MB", u.Free>>20)
		d.add("DOC-04", "記録の場所", "state directory", CheckWarning, dir+" の空きは "+free+" だけ", dir+" has only "+free+" free",
			"空きを作る。満杯の間もアラートは予備の領域に記録し、失った件数を数える", "make room; while it is full alerts go to a reserve, and what is lost is counted")
	default:
		d.add("DOC-04", "記録の場所", "state directory", CheckOK, dir, dir, "", "")
	}
}

func (d *doctor) running(ctx context.Context, cfg *config.Agent) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	st, err := Dial(cfg.StateDir).Status(ctx)
	if err != nil {
		d.add("DOC-05", "サービス", "service", CheckFailed, "エージェントが動いていないか、問い合わせる権限がない", err.Error(),
			"`sekisho-agent service start` で開始するか、root（管理者）で問い合わせる", "start it by `sekisho-agent service start`, or ask as root (administrator)")
		return
	}
	d.add("DOC-05", "サービス", "service", CheckOK, "動作中、版 "+st.AgentVersion, "running, version "+st.AgentVersion, "", "")
	for _, s := range st.Sensors {
		r := CheckOK
		switch s.State {
		case endpoint.SensorDegraded:
			r = CheckWarning
		case endpoint.SensorDown:
			r = CheckFailed
		}
		why := alert.Text{JA: strings.TrimSpace(s.Mechanism + " " + s.Why("ja")), EN: strings.TrimSpace(s.Mechanism + " " + s.Reason)}
		if c := s.Canary; c != nil && c.Problem != "" && r == CheckOK {
			r, why.JA, why.EN = CheckWarning, strings.TrimSpace(why.JA+" 動作確認ができません: "+c.Problem), strings.TrimSpace(why.EN+" cannot be proven to see: "+c.Problem)
		}
		next := alert.Text{}
		if r != CheckOK {
			next = alert.Text{JA: "docs/limits.md に、各方式で何が見えないかがある", EN: "docs/limits.md tells what each mechanism cannot see"}
		}
		d.add("DOC-06", "センサー "+s.Name, "sensor "+s.Name, r, why.JA, why.EN, next.JA, next.EN)
	}
	d.ownRights(st.Rights)
	d.clock(st)
	d.delivery(st.Contact)
	if st.Lost > 0 {
		n := fmt.Sprint(st.Lost)
		d.add("DOC-07", "欠落", "losses", CheckWarning, "開始してから "+n+" 件の出来事が記録から漏れた", n+" events were lost since the start",
			"`sekisho-agent status` で、どのセンサー・送信待ちかを見る", "`sekisho-agent status` shows which sensor or queue")
	}
}

// ownRights is about the running agent's, not those of who asks.
func (d *doctor) ownRights(r endpoint.Rights) {
	kept := strings.Join(r.Capabilities, ", ")
	switch {
	case r.Problem != "":
		d.add("DOC-12", "エージェントの権限", "rights of the agent", CheckWarning, endpoint.Why(r.Problem, "ja"), r.Problem,
			"同梱の systemd ユニットで root として動かす。何が見えないかは `sekisho-agent status` で分かる", "run it as root by the systemd unit that comes with it; `sekisho-agent status` shows what is not seen")
	case r.Dropped:
		d.add("DOC-12", "エージェントの権限", "rights of the agent", CheckOK, "必要なものだけを残した: "+kept, "kept what it needs only: "+kept, "", "")
	}
}

// clock compares with the console's, as the running agent last heard.
func (d *doctor) clock(st endpoint.Status) {
	off := st.Contact.ClockOffset
	switch {
	case st.Contact.LastSuccess.IsZero():
		return // nothing to compare with
	case off.Abs() > clockTolerance:
		by := off.Abs().Round(time.Second).String()
		d.add("DOC-11", "時計", "clock", CheckWarning, "コンソールの時計と "+by+" ずれている", "is off by "+by+" from the console's", "時計を合わせる（NTP）", "set the clock (NTP)")
	default:
		d.add("DOC-11", "時計", "clock", CheckOK, "コンソールの時計と合っている", "agrees with the console's", "", "")
	}
}

// delivery is what the running agent last heard from the console: one that can be
// reached may still refuse this PC.
func (d *doctor) delivery(c endpoint.Contact) {
	switch {
	case c.Error != "":
		h, _ := ship.HelpOf(c.Code)
		d.add("DOC-22", "コンソールへの送信", "delivery to the console", CheckFailed, c.Code+": "+h.JA+"（"+c.Error+"）", c.Code+": "+c.Error, h.NextJA, h.NextEN)
	case !c.LastSuccess.IsZero():
		at := c.LastSuccess.Local().Format(time.DateTime)
		d.add("DOC-22", "コンソールへの送信", "delivery to the console", CheckOK, "最終 "+at, "last at "+at, "", "")
	}
}

func (d *doctor) console(ctx context.Context, cfg *config.Agent) {
	id, err := enroll.Load(identityDir(cfg.StateDir))
	if errors.Is(err, os.ErrNotExist) {
		d.add("DOC-08", "コンソールへの登録", "enrolment", CheckWarning, "登録されていない。この PC だけで判定し、記録を溜める", "not enrolled: judges on this PC only and keeps what it finds",
			"コンソールで登録トークンを作り、`sekisho-agent enroll --token-file FILE`", "make an enrolment token at the console, then `sekisho-agent enroll --token-file FILE`")
		return
	}
	if err != nil {
		why := alert.Text{JA: err.Error(), EN: err.Error()}
		var ee *enroll.Error
		if errors.As(err, &ee) {
			why.JA, why.EN = ee.Text("ja"), ee.Text("en")
		}
		d.add("DOC-08", "コンソールへの登録", "enrolment", CheckFailed, why.JA, why.EN,
			"root（管理者）で実行する。それでも同じなら新しいトークンで登録し直す", "run as root (administrator); if it stays, enrol again with a new token")
		return
	}
	left := time.Until(id.Expires())
	switch days := fmt.Sprint(int(left.Hours() / 24)); {
	case left < 0:
		d.add("DOC-08", "コンソールへの登録", "enrolment", CheckFailed, "証明書の期限が切れた", "the certificate has expired", "新しいトークンで登録し直す", "enrol again with a new token")
	case left < 7*24*time.Hour:
		d.add("DOC-08", "コンソールへの登録", "enrolment", CheckWarning, "証明書の期限まで "+days+" 日", "the certificate ends in "+days+" days", "コンソールとつながれば自動で更新される", "it renews itself once the console can be reached")
	default:
		d.add("DOC-08", "コンソールへの登録", "enrolment", CheckOK, "id "+id.AgentID()+"、証明書の期限まで "+days+" 日", "id "+id.AgentID()+", certificate ends in "+days+" days", "", "")
	}
	t, err := consoleTLS(cfg, id)
	if err != nil {
		d.unreached("", ship.CodeSetup, err.Error())
		return
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: t, Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	for _, addr := range consoleURLs(cfg, id) {
		d.reach(ctx, c, addr)
	}
}

// reach goes the way that shipping goes, proxy included, and says which step of it
// fails. Any answer over the checked TLS connection will do.
func (d *doctor) reach(ctx context.Context, c *http.Client, addr string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, addr, nil)
	if err != nil {
		d.unreached(addr, ship.CodeSetup, err.Error())
		return
	}
	resp, err := c.Do(req)
	if err != nil {
		t := ship.Diagnose(err, time.Now())
		d.unreached(addr, t.Code, t.Text)
		return
	}
	resp.Body.Close()
	d.add("DOC-09", "接続 "+addr, "connection "+addr, CheckOK, "TLS 1.3、証明書を確かめた", "TLS 1.3, certificate verified", "", "")
}

func (d *doctor) unreached(addr, code, why string) {
	h, _ := ship.HelpOf(code)
	d.add("DOC-09", strings.TrimSpace("接続 "+addr), strings.TrimSpace("connection "+addr), CheckFailed,
		code+": "+h.JA+"（"+why+"）", code+": "+why, h.NextJA, h.NextEN)
}

// neighbours are products whose monitoring may stand in the way of ours, or
// whose exclusion list should name us.
var neighbours = map[string]string{
	"auditd": "auditd", "falcon-sensor": "CrowdStrike Falcon", "csfalconservice.exe": "CrowdStrike Falcon", "wazuh-agentd": "Wazuh", "ossec-agentd": "Wazuh",
	"osqueryd": "osquery", "mdatp": "Microsoft Defender", "msmpeng.exe": "Microsoft Defender", "ntrtscan.exe": "Trend Micro Apex One", "ds_agent": "Trend Micro Deep Security",
}

func (d *doctor) neighbours() {
	ps, err := process.Processes()
	if err != nil {
		return
	}
	found := map[string]bool{}
	for _, p := range ps {
		if name, err := p.Name(); err == nil {
			if product := neighbours[strings.ToLower(name)]; product != "" {
				found[product] = true
			}
		}
	}
	for _, product := range slices.Sorted(maps.Keys(found)) {
		d.add("DOC-10", "他の監視製品", "other monitoring products", CheckOK, product+" が動いている。併用できる", product+" runs here; both can work side by side",
			"重い場合は互いの除外リストに加える", "if the PC becomes slow, add each to the other's exclusions")
	}
}
