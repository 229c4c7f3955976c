package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"sekisho/internal/alert"
	"sekisho/internal/config"
	"sekisho/internal/endpoint"
	"sekisho/internal/enroll"

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

// Doctor checks what the agent needs on this PC: rights, settings, rules, room,
// the running service and its sensors, the way to the console, the clock, other
// products. It changes nothing and asks only the console that is set.
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
	d.neighbours()
	return d.checks
}

type doctor struct{ checks []Check }

func (d *doctor) add(code, ja, en string, r CheckResult, whyJA, whyEN, nextJA, nextEN string) {
	d.checks = append(d.checks, Check{code, alert.Text{JA: ja, EN: en}, r, alert.Text{JA: whyJA, EN: whyEN}, alert.Text{JA: nextJA, EN: nextEN}})
}

func (d *doctor) settings(file string) *config.Agent {
	cfg, err := config.LoadAgent(file)
	if err != nil {
		d.add("DOC-01", "設定", "settings", CheckFailed, err.Error(), err.Error(),
			"`sekisho-agent check` で場所と直し方を見る", "run `sekisho-agent check`: it shows each place and what to do")
		return nil
	}
	d.add("DOC-01", "設定", "settings", CheckOK, file, file, "", "")
	return cfg
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
		d.add("DOC-03", "ルール", "rules", CheckFailed, err.Error(), err.Error(),
			"`sekisho-agent rules check` で場所と理由を見る", "run `sekisho-agent rules check`: it shows each place and reason")
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
		d.add("DOC-04", "記録の場所", "state directory", CheckWarning, dir+" の空きが "+free, dir+" has only "+free+" free",
			"空きを作る。満杯の間もアラートは予備領域に記録され、失われた数は数えられる", "make room; while it is full alerts go to a reserve, and what is lost is counted")
	default:
		d.add("DOC-04", "記録の場所", "state directory", CheckOK, dir, dir, "", "")
	}
}

func (d *doctor) running(ctx context.Context, cfg *config.Agent) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	st, err := Dial(cfg.StateDir).Status(ctx)
	if err != nil {
		d.add("DOC-05", "サービス", "service", CheckFailed, "動いていないか、問い合わせる権限がない: "+err.Error(), err.Error(),
			"`sekisho-agent service start`（または systemctl start sekisho-agent）", "`sekisho-agent service start` (or systemctl start sekisho-agent)")
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
		why := strings.TrimSpace(s.Mechanism + " " + s.Reason)
		next := alert.Text{}
		if r != CheckOK {
			next = alert.Text{JA: "docs/limits.md に、各方式で何が見えないかがある", EN: "docs/limits.md tells what each mechanism cannot see"}
		}
		d.add("DOC-06", "センサー "+s.Name, "sensor "+s.Name, r, why, why, next.JA, next.EN)
	}
	if st.Lost > 0 {
		n := fmt.Sprint(st.Lost)
		d.add("DOC-07", "見逃し", "losses", CheckWarning, "開始以降 "+n+" 件を失った", n+" events were lost since the start",
			"`sekisho-agent status` で、どのセンサー・スプールかを見る", "`sekisho-agent status` shows which sensor or spool")
	}
}

// console looks at each step of the way on its own, so that the answer names the
// one that fails.
func (d *doctor) console(ctx context.Context, cfg *config.Agent) {
	id, err := enroll.Load(identityDir(cfg.StateDir))
	if errors.Is(err, os.ErrNotExist) {
		d.add("DOC-08", "コンソールへの登録", "enrolment", CheckWarning, "登録されていない。この PC だけで判定し、記録を溜める", "not enrolled: judges on this PC only and keeps what it finds",
			"コンソールで登録トークンを作り、`sekisho-agent enroll --token-file FILE`", "make an enrolment token at the console, then `sekisho-agent enroll --token-file FILE`")
		return
	}
	if err != nil {
		d.add("DOC-08", "コンソールへの登録", "enrolment", CheckFailed, err.Error(), err.Error(), "登録し直す", "enrol again")
		return
	}
	left := time.Until(id.Expires())
	switch days := fmt.Sprint(int(left.Hours() / 24)); {
	case left < 0:
		d.add("DOC-08", "コンソールへの登録", "enrolment", CheckFailed, "証明書の期限が切れた", "the certificate has expired", "新しいトークンで登録し直す", "enrol again with a new token")
	case left < 7*24*time.Hour:
		d.add("DOC-08", "コンソールへの登録", "enrolment", CheckWarning, "証明書の残り "+days+" 日", "the certificate ends in "+days+" days", "コンソールと連絡が取れれば自動で更新される", "it renews itself once the console can be reached")
	default:
		d.add("DOC-08", "コンソールへの登録", "enrolment", CheckOK, "id "+id.AgentID()+"、証明書の残り "+days+" 日", "id "+id.AgentID()+", certificate ends in "+days+" days", "", "")
	}
	for _, addr := range consoleURLs(cfg, id) {
		d.reach(ctx, addr, id)
	}
}

func (d *doctor) reach(ctx context.Context, addr string, id *enroll.Identity) {
	u, err := url.Parse(addr)
	if err != nil {
		d.add("DOC-09", "接続 "+addr, "connection "+addr, CheckFailed, err.Error(), err.Error(), "", "")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	port := u.Port()
	if port == "" {
		port = "443"
	}
	fail := func(err error, ja, en string) {
		d.add("DOC-09", "接続 "+addr, "connection "+addr, CheckFailed, err.Error(), err.Error(), ja, en)
	}
	if net.ParseIP(u.Hostname()) == nil {
		if _, err := net.DefaultResolver.LookupHost(ctx, u.Hostname()); err != nil {
			fail(err, "名前を解決できない。DNS か hosts を確かめる", "the name cannot be resolved: check DNS or the hosts file")
			return
		}
	}
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		fail(err, "ポートに届かない。コンソールが動いているか、ファイアウォールを確かめる", "the port cannot be reached: is the console running, does a firewall block it?")
		return
	}
	defer c.Close()
	t := id.TLSConfig()
	t.ServerName = u.Hostname()
	tc := tls.Client(c, t)
	if err := tc.HandshakeContext(ctx); err != nil {
		fail(err, "TLS で失敗。時計のずれ、間に入るプロキシ、作り直されたコンソールのいずれか", "TLS fails: this PC's clock is off, a proxy is in between, or the console was made anew")
		return
	}
	d.add("DOC-09", "接続 "+addr, "connection "+addr, CheckOK, "TLS 1.3、証明書が確かめられた", "TLS 1.3, certificate verified", "", "")
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
	for product := range found {
		d.add("DOC-10", "他の監視製品", "other monitoring products", CheckOK, product+" が動いている。併用できる", product+" runs here; both can work side by side",
			"重い場合は互いの除外リストに加える", "if the PC becomes slow, add each to the other's exclusions")
	}
}

// privileged reports whether the process may do what the sensors need.
func privileged() bool {
	if runtime.GOOS == "windows" {
		// Opening the raw disk needs administrator's rights and changes nothing.
		f, err := os.Open(`\\.\PHYSICALDRIVE0`)
		if err != nil {
			return false
		}
		f.Close()
		return true
	}
	return os.Geteuid() == 0
}
