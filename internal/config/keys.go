package config

import (
	"net"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // Windows has no zone database of its own
	"unicode"

	"github.com/bmatcuk/doublestar/v4"

	"sekisho/internal/problem"
)

// Key is what the tables know of one setting besides its type and its default.
type Key struct {
	Path     string   // "people[].last_day"; "*" stands for any key of a mapping
	Enum     []string // the only values, if any
	Min, Max int64    // of numbers, in their smallest unit (ns, bytes); Max 0: no upper end
	Required bool     // has to be there, within an entry of a list
	Restart  bool     // a change takes effect at the next start only
	Default  string   // in words, where the default is made from something else
	Example  string   // a value as it is written in YAML
	JA, EN   string   // what it is

	path    bool // a file or folder: relative ones start at the settings file
	lower   bool // kept in lower case
	sizeToo bool // a number that may be written as a size
	check   func(string) reason
}

// A reason says why a value is wrong. The zero reason: it is right.
type reason struct{ JA, EN, hint string }

// Words for each type of scalar.
func wanted(t reflect.Type) reason {
	switch {
	case t == durationType:
		return reason{JA: "時間（例: 24h）", EN: "a duration (such as 24h)"}
	case t == sizeType:
		return reason{JA: "容量（例: 64MB）", EN: "a size (such as 64MB)"}
	case t == clockType:
		return reason{JA: "時刻（例: 08:30）", EN: "a time of day (such as 08:30)"}
	case t == dateType:
		return reason{JA: "日付（例: 2027-03-31）", EN: "a date (such as 2027-03-31)"}
	case t.Kind() == reflect.Bool:
		return reason{JA: "true か false", EN: "true or false"}
	case t.Kind() == reflect.String:
		return reason{JA: "文字列", EN: "text"}
	}
	return reason{JA: "整数", EN: "a whole number"}
}

var (
	audiences  = []string{AudiencePrivate, AudienceDepartment, AudienceBroad}
	weekdays   = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}
	watchLists = []string{"leaver", "secondee", "temp", "contractor"}
	levels     = []string{"debug", "info", "warn", "error"}
)

// agentKeys is every setting of the agent, in the order of the documents.
var agentKeys = slices.Concat(agentHead,
	deviceKeys("approved", "許可した機器", "approved device"),
	[]Key{{Path: "devices.approved[].expires", Example: "2027-03-31", JA: "許可の最終日。", EN: "Last day on which it is approved."}},
	deviceKeys("lost", "紛失した機器", "lost device"),
	agentTail, logKeys("state_dir"))

// consoleKeys is every setting of the console, in the order of the documents.
var consoleKeys = slices.Concat(consoleHead, logKeys("data_dir"))

var agentHead = []Key{
	{Path: "console.url", Restart: true, Example: "https://console.example.jp:8443", check: checkHTTPS,
		JA: "コンソールの URL。複数書くと上から順に試します。登録済みの PC では書かなくて構いません。", EN: "URL of the console; several are tried in order. Not needed on a PC that is enrolled."},
	{Path: "console.ca", Restart: true, Example: "console-ca.pem", path: true,
		JA: "コンソールの認証局の証明書（PEM ファイル）。", EN: "PEM file with the console's CA certificate."},
	{Path: "console.pin", Restart: true, Example: "sha256:" + strings.Repeat("0", 64), lower: true, check: checkPin,
		JA: "認証局の公開鍵（SPKI）の SHA-256。16 進 64 桁。", EN: "SHA-256 of the CA's public key (SPKI), 64 hex digits."},

	{Path: "host.department", Example: "総務課", JA: "この PC を使う部署。", EN: "Department that uses this PC."},
	{Path: "host.tags", Example: "[sensitive]", check: checkTag,
		JA: "この PC の区分。sensitive（重要）、maintenance（保守端末）、emergency-only（緊急用）、department-only（部署専用）、shared（共用）など。", EN: "What kind of PC it is: sensitive, maintenance, emergency-only, department-only, shared ..."},

	{Path: "state_dir", Restart: true, path: true, Example: "/var/lib/sekisho", Default: "/var/lib/sekisho; %ProgramData%\\Sekisho",
		JA: "証明書と未送信の記録を置くフォルダ。", EN: "Folder of the certificate and of records not yet sent."},

	{Path: "sensors.usb.enabled", Restart: true, JA: "USB 機器の接続と取り外しを見ます。", EN: "Watch USB devices come and go."},
	{Path: "sensors.volume.enabled", Restart: true, JA: "ドライブやネットワーク共有の接続を見ます。", EN: "Watch volumes and network shares being mounted."},
	{Path: "sensors.volume.removable_paths", Restart: true, Example: "[/mnt/relay]", check: checkAbsolute,
		JA: "リムーバブルメディアとして扱うマウント先。", EN: "Mount points that count as removable media."},
	{Path: "sensors.file.enabled", Restart: true, JA: "リムーバブルメディアと保護した場所のファイル操作を見ます。", EN: "Watch files on removable media and in protected places."},
	{Path: "sensors.file.ignore", Restart: true, Example: "[/usr/bin/updatedb]", check: checkGlob,
		JA: "ファイル操作を記録しないプログラム（ウイルス対策やバックアップなど）。* と ** が使えます。", EN: "Programs whose file activity is not recorded (antivirus, backup); * and ** allowed."},
	{Path: "sensors.process.enabled", Restart: true, JA: "プログラムの起動を見ます。", EN: "Watch programs being started."},
	{Path: "sensors.session.enabled", Restart: true, JA: "ログオンとログオフ、画面のロック、放置された画面の使用を見ます。",
		EN: "Watch people log on and off, screens being locked, and idle sessions being used."},
	{Path: "sensors.print.enabled", Restart: true, JA: "印刷を見ます（Windows だけ。Windows の印刷のログが有効になっている必要があります）。",
		EN: "Watch documents being printed (Windows only; its log of prints has to be on)."},
	{Path: "sensors.print.enable_log", Restart: true, JA: "印刷のログが無効なら、エージェントが有効にします。false のときは Windows の設定を変えません。",
		EN: "Have the agent switch on the log of prints where it is off. With false nothing of Windows is changed."},
	{Path: "sensors.canary", Min: int64(10 * time.Second), Max: int64(day), Example: "5m",
		JA: "センサーが働いていることを確かめる間隔。エージェントが自分でプロセスを起動してファイルを書き、ルールまで届くかを見ます。機器、ボリューム、ログオンは、システムに聞き直して比べます。", EN: "How often the sensors are proven to see: the agent starts a process that writes a file, and looks whether both reach the rules; for devices, volumes and logons it asks the system anew and compares."},

	{Path: "protected[].label", Required: true, Example: "住民情報", JA: "場所の名前。アラートに表示されます。", EN: "Name of the place, shown in alerts."},
	{Path: "protected[].paths", Example: "[\"/srv/juki/**\", \"D:\\\\juki\\\\**\"]", check: checkGlob,
		JA: "ファイルの場所。* と ** が使えます。Windows では大文字小文字を区別しません。", EN: "Where the files are; * and ** allowed. Case does not count on Windows."},
	{Path: "protected[].shares", Example: `['\\fs01\juki']`, check: checkShare,
		JA: "共有フォルダ（\\\\サーバー\\共有 または サーバー:/公開パス）。", EN: "Network shares (\\\\server\\share or server:/export)."},
	{Path: "protected[].department", Example: "市民課", JA: "ファイルを持つ部署。", EN: "Department that owns the files."},
	{Path: "protected[].audience", Enum: audiences, Example: "department", JA: "読める人の範囲。", EN: "Who can read it."},

	{Path: "shares[].share", Required: true, Example: `'\\fs01\soumu*'`, check: checkShare,
		JA: "共有フォルダ。* と ** が使えます。上から見て最初に合うものが効きます。", EN: "Network share; * and ** allowed. The first that fits counts."},
	{Path: "shares[].department", Example: "総務課", JA: "共有フォルダを持つ部署。", EN: "Department that owns the share."},
	{Path: "shares[].audience", Enum: audiences, Example: "broad", JA: "読める人の範囲。", EN: "Who can read it."},

	{Path: "remote_access.approved[].tool", Required: true, Example: "anydesk", lower: true, check: checkID,
		JA: "許可する遠隔操作ツール（一覧の id）。", EN: "Tool that is allowed (id in the catalogue)."},
	{Path: "remote_access.approved[].path", Example: `'C:\Program Files*\AnyDesk\*.exe'`, check: checkGlob,
		JA: "実行ファイルの場所。書くと、ここにあるものだけを許可します。", EN: "Where the executable has to be."},
	{Path: "remote_access.approved[].signer", Example: "AnyDesk Software GmbH",
		JA: "コード署名の署名者。書くと、この署名のものだけを許可します。", EN: "Who has to have signed it."},
	{Path: "remote_access.approved[].account", Example: `EXAMPLE\helpdesk`, check: checkAccount,
		JA: "使ってよいアカウント（名前 または ドメイン\\名前）。", EN: "Account that may run it (name or DOMAIN\\name)."},
	{Path: "remote_access.approved[].reason", Example: "保守業者の作業", JA: "許可の理由。", EN: "Why it is allowed."},
	{Path: "remote_access.approved[].expires", Example: "2027-03-31", JA: "許可の最終日。", EN: "Last day on which it is allowed."},
}

// deviceKeys is what the two lists of devices have in common.
func deviceKeys(list, ja, en string) []Key {
	p := "devices." + list + "[]."
	return []Key{
		{Path: p + "vendor", Example: `"0951"`, lower: true, check: checkHex4, JA: ja + "のベンダー ID（16 進 4 桁）。", EN: "Vendor id of the " + en + " (4 hex digits)."},
		{Path: p + "product", Example: `"1666"`, lower: true, check: checkHex4, JA: "製品 ID（16 進 4 桁）。", EN: "Product id (4 hex digits)."},
		{Path: p + "serial", Example: `"60A44C4252F1F2B0"`, JA: "シリアル番号。書かないと同じ製品すべてに合います。", EN: "Serial number; without it every device of the product fits."},
		{Path: p + "label", Example: "USB-012", JA: "台帳の管理番号や名前。", EN: "Number or name in the ledger."},
	}
}

var agentTail = []Key{
	{Path: "work_hours.timezone", Example: "Asia/Tokyo", check: checkZone, JA: "勤務時間の時間帯。PC の設定には左右されません。", EN: "Time zone of the work hours; never the PC's own."},
	{Path: "work_hours.days", Enum: weekdays, Example: "[mon, tue, wed, thu, fri]", JA: "勤務する曜日。", EN: "Days of work."},
	{Path: "work_hours.from", Example: `"08:30"`, JA: "始業時刻。", EN: "When work begins."},
	{Path: "work_hours.to", Example: `"17:15"`, JA: "終業時刻。", EN: "When work ends."},
	{Path: "work_hours.holidays.calendar", Enum: []string{"jp", "none"}, Example: "jp",
		JA: "jp は日本の祝日と 12 月 29 日から 1 月 3 日まで。none はなし。", EN: "jp: the holidays of Japan and 29 December to 3 January; none: no holidays."},
	{Path: "work_hours.holidays.extra", Example: "[2027-06-01]", JA: "ほかの休日。", EN: "Further holidays."},

	{Path: "people[].id", Required: true, Example: "10234", JA: "職員番号など、人を表す番号。", EN: "Number or name of the person, such as the staff number."},
	{Path: "people[].accounts", Required: true, Example: `[t.yamada, 'EXAMPLE\t.yamada']`, check: checkAccount,
		JA: "その人のアカウント（名前 または ドメイン\\名前）。", EN: "Accounts of the person (name or DOMAIN\\name)."},
	{Path: "people[].department", Example: "市民課", JA: "所属。", EN: "Department."},
	{Path: "people[].lists", Enum: watchLists, Example: "[leaver]",
		JA: "注意する区分。leaver（退職予定）、secondee（出向）、temp（派遣・臨時）、contractor（委託）。", EN: "Watch lists: leaver, secondee, temp, contractor."},
	{Path: "people[].last_day", Example: "2027-03-31", JA: "最終勤務日。", EN: "Last day at work."},

	{Path: "rules.paths", Example: "[rules.d]", path: true, JA: "追加の Sigma ルールのファイルまたはフォルダ。", EN: "Files and folders of further Sigma rules."},
	{Path: "rules.builtin", JA: "製品付属のルールを使います。", EN: "Use the shipped rules."},
	{Path: "rules.disable", Example: "[USB-2]", check: checkID, JA: "使わないルール（USB-2 のような番号、または Sigma の id）。", EN: "Rules that do not run (a number such as USB-2, or a Sigma id)."},
	{Path: "rules.thresholds.*.*", Min: 1, Max: 1 << 50, sizeToo: true, Example: "{USB-3: {files: 50, bytes: 100MB}}",
		JA: "ルールのしきい値。ルールの番号、しきい値の名前、数の順に書きます。", EN: "Thresholds of rules: number of the rule, name of the threshold, value."},
	{Path: "rules.thresholds_for[].department", Example: "市民課",
		JA: "しきい値を変える部署（人の所属。分からないときは PC の部署）。department、tag、list のうち書いたものすべてに合う人と PC に効きます。上から見て、最初に合ったものが効きます。",
		EN: "Department for which thresholds differ: the person's, or the PC's where that is not known. Whatever is given of department, tag and list has to fit; the first entry that fits counts."},
	{Path: "rules.thresholds_for[].tag", Example: "sensitive", check: checkTag, JA: "しきい値を変える PC の区分。", EN: "Tag of the PCs for which thresholds differ."},
	{Path: "rules.thresholds_for[].list", Enum: watchLists, Example: "leaver", JA: "しきい値を変える人の区分。", EN: "Watch list of the people for whom thresholds differ."},
	{Path: "rules.thresholds_for[].thresholds.*.*", Min: 1, Max: 1 << 50, sizeToo: true, Example: "{USB-3: {files: 20}}",
		JA: "そのしきい値。rules.thresholds と同じ書きかたです。", EN: "The thresholds, written as in rules.thresholds."},
	{Path: "rules.exceptions[].rules", Required: true, Example: "[USB-3]", check: checkID,
		JA: "当てはめないルール（USB-3 のような番号、Sigma の id、name）。any はすべて。", EN: "Rules that do not apply (a number such as USB-3, a Sigma id or a name); any: all of them."},
	{Path: "rules.exceptions[].when.*", Example: "{user.name: svc-backup, host.name: [nas-*]}",
		JA: "どのイベントか。項目の名前と値（* と ? が使えます）。すべての項目が、値のどれかに合うときです。",
		EN: "Which events: fields and their values (* and ? allowed). Each field has to have one of its values."},
	{Path: "rules.exceptions[].reason", Required: true, Example: "夜間バックアップ（承認 2026-041）", check: checkNotEmpty,
		JA: "なぜ正しい使いかたなのか。後から見る人のために必ず書きます。", EN: "Why it is right, for whoever reads this later."},
	{Path: "rules.exceptions[].expires", Example: "2027-03-31", JA: "例外の最終日。", EN: "Last day on which it holds."},
	{Path: "rules.placeholders.*", Example: "{servers: [fs01, fs02]}",
		JA: "ルールの %名前% が表す値（修飾子 expand）。", EN: "What a %name% in a rule stands for (modifier expand)."},

	{Path: "limits.spool_alerts", Restart: true, Min: int64(MiB), Max: int64(64 * GiB), Example: "64MB", JA: "未送信のアラートに使うディスクの上限。", EN: "Disk for alerts not yet sent."},
	{Path: "limits.spool_activity", Restart: true, Min: int64(MiB), Max: int64(64 * GiB), Example: "256MB", JA: "未送信の活動記録に使うディスクの上限。", EN: "Disk for activity not yet sent."},
	{Path: "limits.activity_max_age", Restart: true, Min: int64(time.Hour), Max: int64(366 * day), Example: "30d",
		JA: "未送信の活動記録を残す期間。過ぎたものは捨て、件数を報告します。", EN: "How long unsent activity is kept; what is dropped is counted and told."},
	{Path: "limits.memory", Restart: true, Min: int64(24 * MiB), Max: int64(4 * GiB), Example: "48MiB", JA: "メモリー使用量の目安の上限。超えると記録を間引きます（環境変数 GOMEMLIMIT があれば、ごみ集めはそちらに従います）。", EN: "Soft limit of memory; over it, records are shed (where GOMEMLIMIT is set in the environment, the garbage collector goes by that)."},
	{Path: "limits.cpu", Min: 1, Max: 1600, Example: "25",
		JA: "CPU 使用率の上限（1 コアに対する %、数秒の平均）。超えている間は、まず読み出し、次に書き込みとプロセスの活動記録を間引き、件数を報告します。アラートは間引きません。", EN: "Limit of CPU in percent of one core, over some seconds. While over it, reads are shed first, then writes, and activity that no rule needs; the number is told. Alerts are not shed."},
	{Path: "limits.drop_privileges", Restart: true, JA: "センサーが働き始めたら、いらなくなった権限を手放します（Linux）。", EN: "Give up rights that are no longer needed once the sensors work (Linux)."},
}

var consoleHead = []Key{
	{Path: "data_dir", Restart: true, path: true, Example: "/var/lib/sekisho-console", Default: "/var/lib/sekisho-console; %ProgramData%\\Sekisho Console",
		JA: "データベースと鍵を置くフォルダ。", EN: "Folder of the database and the keys."},
	{Path: "listen.agents", Restart: true, Example: `":8443"`, check: checkListen, JA: "PC のエージェントを受け付ける住所（TLS 1.3）。", EN: "Address for agents (TLS 1.3)."},
	{Path: "listen.web", Restart: true, Example: `"127.0.0.1:8080"`, check: checkListen,
		JA: "画面の住所。証明書（web.tls）がなければ、この機械の中（127.0.0.1）だけです。", EN: "Address of the pages; loopback only unless web.tls is set."},
	{Path: "listen.metrics", Restart: true, Example: `"127.0.0.1:9460"`, check: checkListenOrNone, JA: "Prometheus の計測値の住所。\"\" なら出しません。", EN: "Address of the Prometheus metrics; \"\" for none."},
	{Path: "web.tls.cert_file", Restart: true, path: true, Example: "web.crt", JA: "画面の証明書（PEM）。", EN: "Certificate of the pages (PEM)."},
	{Path: "web.tls.key_file", Restart: true, path: true, Example: "web.key", JA: "証明書の秘密鍵（PEM）。", EN: "Key of the certificate (PEM)."},
	{Path: "web.public_url", Restart: true, Example: "https://sekisho.example.jp", check: checkURL, Default: "listen.web",
		JA: "利用者がブラウザーに入れる URL。", EN: "URL as people type it."},
	{Path: "names", Restart: true, Example: "[console.example.jp, 192.0.2.10]", check: checkName, Default: "ホスト名 / the host's name",
		JA: "エージェントがこのコンソールを呼ぶ名前と IP アドレス。証明書と登録トークンに入ります。", EN: "Names and IP addresses by which agents reach this console; they go into its certificate and the enrolment tokens."},
	{Path: "storage.sqlite", Restart: true, path: true, Example: "/srv/sekisho/sekisho.db", Default: "data_dir/sekisho.db", JA: "データベースのファイル。", EN: "Database file."},
	{Path: "limits.body", Restart: true, Min: int64(MiB), Max: int64(256 * MiB), Example: "16MiB", JA: "1 回の送信の上限（圧縮後）。", EN: "Largest request (compressed)."},
	{Path: "limits.rate", Restart: true, Min: 1, Max: 10_000, Example: "20", JA: "1 台からの 1 秒あたりの送信回数の上限。短い間なら 10 倍まで。", EN: "Requests a second from one agent; short bursts of ten times that."},
	{Path: "session.idle", Restart: true, Min: int64(time.Minute), Max: int64(7 * day), Example: "8h", JA: "操作がないときにログアウトするまで。", EN: "Signed out after this long without use."},
	{Path: "session.absolute", Restart: true, Min: int64(time.Minute), Max: int64(31 * day), Example: "24h", JA: "操作していてもログアウトするまで。", EN: "Signed out after this long in any case."},
	{Path: "retention.activity", Restart: true, Min: int64(day), Max: int64(3660 * day), Example: "90d", JA: "活動記録を残す期間。", EN: "How long activity is kept."},
}

func logKeys(dir string) []Key {
	return []Key{
		{Path: "log.level", Enum: levels, Example: "info", JA: "記録する詳しさ。", EN: "How much is logged."},
		{Path: "log.dir", Restart: true, path: true, Example: "/var/log/sekisho", Default: dir + "/log", JA: "ログのフォルダ。", EN: "Folder of the logs."},
		{Path: "log.max_size", Restart: true, Min: int64(MB), Max: int64(GB), Example: "10MB", JA: "1 ファイルの上限。", EN: "Size of one log file."},
		{Path: "log.max_files", Restart: true, Min: 1, Max: 100, Example: "5", JA: "残す古いログの数。", EN: "Old log files kept."},
	}
}

// checkText refuses what no setting needs and what would be dangerous to show.
func checkText(s string) reason {
	for _, r := range s {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' {
			return reason{JA: "制御文字や書字方向を変える文字は使えません", EN: "control characters and marks of text direction are not allowed"}
		}
	}
	return reason{}
}

// checkWord is for keys that people choose: rule numbers, names of thresholds.
func checkWord(s string) (ja, en string) {
	if r := checkID(s); r.EN != "" {
		return r.JA, r.EN
	}
	return "", ""
}

func checkID(s string) reason {
	ok := s != "" && len(s) <= 100
	for _, r := range s {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}
	if !ok {
		return reason{JA: problem.Quote(s) + " は名前として使えません（英数字と - _ . だけ）", EN: problem.Quote(s) + " cannot be a name here (letters, digits, - _ . only)"}
	}
	return reason{}
}

func checkNotEmpty(s string) reason {
	if strings.TrimSpace(s) == "" {
		return reason{JA: "空です", EN: "empty text"}
	}
	return reason{}
}

func checkTag(s string) reason {
	if s == "" || strings.ContainsAny(s, " \t,") || len(s) > 64 {
		return reason{JA: problem.Quote(s) + " は区分の名前になりません（空白と , は使えません）", EN: problem.Quote(s) + " cannot be a tag (no blanks or commas)"}
	}
	return reason{}
}

func checkURL(s string) reason {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return reason{JA: problem.Quote(problem.Mask(s)) + " は URL ではありません", EN: problem.Quote(problem.Mask(s)) + " is not a URL"}
	case u.User != nil:
		return reason{JA: "URL に名前やパスワードを入れられません", EN: "a URL must not hold a name or password"}
	case u.RawQuery != "" || u.Fragment != "":
		return reason{JA: "URL に ? や # は使えません", EN: "no ? or # in this URL"}
	}
	return reason{}
}

func checkHTTPS(s string) reason {
	if r := checkURL(s); r.EN != "" {
		if !strings.Contains(s, "@") && !strings.Contains(s, "://") && checkURL("https://"+s).EN == "" {
			r.hint = "https://" + s
		}
		return r
	}
	if rest, plain := strings.CutPrefix(strings.ToLower(s), "http://"); plain {
		return reason{JA: "https:// で始まる URL を書いてください", EN: "want a URL that starts with https://", hint: "https://" + rest}
	}
	return reason{}
}

func checkPin(s string) reason {
	hex, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(hex) != 64 || strings.Trim(strings.ToLower(hex), "0123456789abcdef") != "" {
		return reason{JA: problem.Quote(s) + " は sha256: と 16 進 64 桁ではありません", EN: problem.Quote(s) + " is not sha256: and 64 hex digits"}
	}
	return reason{}
}

func checkHex4(s string) reason {
	if len(s) == 4 && strings.Trim(strings.ToLower(s), "0123456789abcdef") == "" {
		return reason{}
	}
	r := reason{JA: problem.Quote(s) + " は 16 進 4 桁ではありません", EN: problem.Quote(s) + " is not 4 hex digits"}
	if h := strings.TrimPrefix(strings.ToLower(s), "0x"); h != "" && len(h) <= 4 && strings.Trim(h, "0123456789abcdef") == "" {
		r.hint = strings.Repeat("0", 4-len(h)) + h
	}
	return r
}

func checkAbsolute(s string) reason {
	if !rooted(s) {
		return reason{JA: problem.Quote(s) + " は / や C:\\ で始まっていません", EN: problem.Quote(s) + " does not start with / or C:\\"}
	}
	return reason{}
}

// checkGlob is for patterns over whole paths. Backslashes separate folders, they
// do not escape.
func checkGlob(s string) reason {
	g := strings.ReplaceAll(s, `\`, "/")
	switch {
	case s == "":
		return reason{JA: "空です", EN: "empty pattern"}
	case !doublestar.ValidatePattern(g):
		return reason{JA: problem.Quote(s) + " は場所の形として読めません（[ ] { } の組を確かめてください）", EN: problem.Quote(s) + " is not a pattern (check its brackets and braces)"}
	case !rooted(s) && g[0] != '*' && !(len(g) > 2 && g[1] == ':') && !strings.HasPrefix(g, "{") && !strings.HasPrefix(g, "["):
		return reason{JA: problem.Quote(s) + " は何にも合いません（/ や C:\\ や ** で始めてください）", EN: problem.Quote(s) + " can never match (start with /, C:\\ or **)", hint: "**/" + g}
	}
	return reason{}
}

func checkShare(s string) reason {
	g := strings.ReplaceAll(s, `\`, "/")
	ok := false
	if rest, unc := strings.CutPrefix(g, "//"); unc {
		server, share, two := strings.Cut(rest, "/")
		ok = two && server != "" && share != ""
	} else if server, export, nfs := strings.Cut(g, ":/"); nfs {
		ok = server != "" && !strings.Contains(server, "/") && len(server) > 1 && export == strings.TrimSpace(export)
	}
	if !ok || !doublestar.ValidatePattern(g) {
		return reason{JA: problem.Quote(s) + ` は共有フォルダの形ではありません（\\サーバー\共有 または サーバー:/公開パス）`, EN: problem.Quote(s) + ` is not a share (\\server\share or server:/export)`}
	}
	return reason{}
}

func checkAccount(s string) reason {
	domain, name, two := strings.Cut(s, `\`)
	if s == "" || two && (domain == "" || name == "" || strings.Contains(name, `\`)) || strings.ContainsAny(s, "/*") {
		return reason{JA: problem.Quote(s) + ` はアカウントではありません（名前 または ドメイン\名前）`, EN: problem.Quote(s) + ` is not an account (name or DOMAIN\name)`}
	}
	return reason{}
}

func checkZone(s string) reason {
	if s == "" || s == "Local" {
		return reason{JA: "時間帯の名前を書いてください（例: Asia/Tokyo）", EN: "want the name of a time zone (such as Asia/Tokyo)"}
	}
	if _, err := time.LoadLocation(s); err != nil {
		return reason{JA: problem.Quote(s) + " という時間帯はありません（例: Asia/Tokyo）", EN: problem.Quote(s) + " is not a time zone (such as Asia/Tokyo)",
			hint: problem.Suggest(s, []string{"Asia/Tokyo", "Asia/Seoul", "Asia/Singapore", "UTC"})}
	}
	return reason{}
}

func checkListen(s string) reason {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || strings.ContainsAny(host, "/ ") || n > 65535 {
		r := reason{JA: problem.Quote(s) + " は待ち受けの住所ではありません（例: 127.0.0.1:8080、:8443）", EN: problem.Quote(s) + " is not an address to listen on (such as 127.0.0.1:8080, :8443)"}
		if n, err := strconv.ParseUint(s, 10, 16); err == nil {
			r.hint = ":" + strconv.FormatUint(n, 10)
		}
		return r
	}
	return reason{}
}

func checkListenOrNone(s string) reason {
	if s == "" {
		return reason{}
	}
	return checkListen(s)
}

// checkName is a DNS name or an IP address, without a port.
func checkName(s string) reason {
	if net.ParseIP(s) != nil {
		return reason{}
	}
	ok := s != "" && len(s) <= 253
	for label := range strings.SplitSeq(s, ".") {
		ok = ok && label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-'
		for _, r := range label {
			ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
		}
	}
	if !ok {
		r := reason{JA: problem.Quote(s) + " は DNS 名でも IP アドレスでもありません（ポートや https:// は書きません）", EN: problem.Quote(s) + " is neither a DNS name nor an IP address (no port, no https://)"}
		if u, err := url.Parse(s); err == nil && u.Hostname() != "" && checkName(u.Hostname()).EN == "" {
			r.hint = u.Hostname()
		} else if h, _, err := net.SplitHostPort(s); err == nil && h != "" && checkName(h).EN == "" {
			r.hint = h
		}
		return r
	}
	return reason{}
}
