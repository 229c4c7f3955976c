package ship

// Help says what a code means to the person in front of the PC, and what to do.
type Help struct {
	JA, EN         string // what it is
	NextJA, NextEN string // what to do about it
}

// Codes maps every code to its texts. docs/errors.md has a line on each.
func Codes() map[string]Help {
	m := make(map[string]Help, len(help))
	for code, h := range help {
		m[code] = h
	}
	return m
}

// HelpOf is the texts of one code; ok is false for a code of somebody else.
func HelpOf(code string) (h Help, ok bool) {
	h, ok = help[code]
	return h, ok
}

var help = map[string]Help{
	CodeSetup: {"送信を始められません", "shipping cannot begin",
		"設定の console.url、console.ca、console.pin を確かめる", "check console.url, console.ca and console.pin in the settings"},
	CodeUnreachable: {"コンソールから応答がありません", "the console does not answer",
		"コンソールの稼働、LAN、経路、ファイアウォールを確かめる", "is the console running? check cable, route and firewalls"},
	CodeName: {"コンソールの名前を解決できません", "the console's name cannot be resolved",
		"DNS か hosts ファイルを確かめる", "check DNS or the hosts file"},
	CodeRefused: {"サーバーは応答しますが、そのポートでコンソールが動いていません", "the machine answers, but no console listens there",
		"コンソールのサービスが動いているか、ポート番号が合っているかを確かめる", "is the console's service running, is the port right?"},
	CodeUnknownCA: {"接続先の証明書が、この PC の信頼する認証局のものではありません", "the certificate of the other end is not from the authority that this PC trusts",
		"通信を検査するプロキシの例外にコンソールを加える。コンソールを作り直したのなら登録し直す", "exempt the console from TLS inspection; if the console was made anew, enrol again"},
	CodePin: {"接続先の鍵が、登録したコンソールのものではありません", "the key of the other end is not that of the console this PC was enrolled with",
		"設定の console.pin と接続先を確かめる。コンソールを作り直したのなら登録し直す", "check console.pin and the address; if the console was made anew, enrol again"},
	CodeExpired: {"コンソールの証明書の期限が切れているか、この PC の時計が進んでいます", "the console's certificate has expired, or this PC's clock is ahead",
		"この PC の時計を確かめる。合っていればコンソールを再起動して証明書を更新する", "check this PC's clock; if it is right, restart the console, which renews its certificate"},
	CodeClock: {"この PC とコンソールの時計がずれています", "the clocks of this PC and the console differ",
		"両方の時計を合わせる（NTP）", "set both clocks (NTP)"},
	CodeWrongName: {"コンソールの証明書に、この接続先の名前がありません", "the console's certificate is not for this name",
		"コンソールの設定 names にこの名前を加えて再起動する", "add the name to names in the console's settings and restart it"},
	CodeNotTLS: {"接続先が TLS 1.3 で応答しません", "what answers does not speak TLS 1.3",
		"アドレスとポートを確かめる。間に古いプロキシがないかを確かめる", "check address and port; is an old proxy in between?"},
	CodeOwnCert: {"コンソールがこの PC の証明書を受け付けません", "the console does not accept this PC's certificate",
		"時計を確かめる。合っていれば新しいトークンで登録し直す", "check the clock; if it is right, enrol again with a new token"},
	CodeRevoked: {"この PC の登録はコンソールで取り消されているか、コンソールが知りません", "this PC's enrolment was revoked, or the console does not know it",
		"取り消した理由を確かめる。戻すには新しいトークンで登録し直す", "ask why it was revoked; to bring it back, enrol with a new token"},
	CodeBusy: {"コンソールが混み合っています。自動的にやり直します", "the console is busy; it is tried again by itself",
		"続くようなら、コンソールの負荷とディスクを確かめる", "if it goes on, look at the console's load and disk"},
	CodeServer: {"コンソール側で問題が起きています。自動的にやり直します", "the console has trouble of its own; it is tried again by itself",
		"コンソールのログを確かめる", "see the console's log"},
	CodeAnswer: {"コンソールのものではない応答です", "the answer is not one of a console",
		"アドレスとポートを確かめる。プロキシのログイン画面が間にないかを確かめる", "check address and port; does a proxy ask for a sign-in in between?"},
	CodeRows: {"コンソールが受け付けない記録がありました。脇に置き、残りを送っています", "the console refuses some records; they are set aside and the others go on",
		"state_dir の rejected.jsonl を見て、両方の版を合わせる", "see rejected.jsonl in state_dir; bring both programs to the same version"},
	CodeSpool: {"この PC の送信待ちの記録を読み書きできません", "the queue on this PC cannot be read or written",
		"state_dir の空き容量、権限、ディスクの故障を確かめる", "check room, rights and the health of the disk of state_dir"},
}
