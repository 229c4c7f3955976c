package enroll

import (
	"time"

	"sekisho/internal/wire"
)

// The codes of what can go wrong with an identity. They are stable: scripts and
// docs/errors.md go by them.
const (
	CodeToken        = "ENR-01" // the token cannot be read
	CodeTokenUnknown = "ENR-02"
	CodeTokenExpired = "ENR-03"
	CodeTokenUsedUp  = "ENR-04"
	CodeTokenRevoked = "ENR-05"
	CodePin          = "ENR-06" // the other end is not the console of the token
	CodeClock        = "ENR-07" // certificates are not valid by this PC's clock
	CodeCertExpired  = "ENR-08" // the agent's certificate
	CodeCertUnknown  = "ENR-09" // none was shown, or it was replaced, or it is not ours
	CodeRevoked      = "ENR-10" // the endpoint was revoked
	CodeName         = "ENR-11" // the console's name is not resolved
	CodeRefused      = "ENR-12" // nobody listens there
	CodeTimeout      = "ENR-13"
	CodeRequest      = "ENR-14" // the console does not understand the request
	CodeBusy         = "ENR-15"
	CodeConsole      = "ENR-16" // the console has trouble of its own
	CodeStore        = "ENR-17" // the identity cannot be written here
	CodeIdentity     = "ENR-18" // the identity here cannot be read
	CodeAddress      = "ENR-19" // the console does not go by this address
	CodeAnswer       = "ENR-20" // the answer is not one of a console
	CodeTLS          = "ENR-21" // any other failure of TLS
	CodeClockOff     = "ENR-30" // a warning: the clocks differ
)

// texts are what people read, by code: what it is and what to do about it.
var texts = map[string]struct{ ja, en string }{
	CodeToken:        {"登録トークンを読み取れません。全体を貼り付けたか確かめてください", "the enrolment token cannot be read: paste all of it"},
	CodeTokenUnknown: {"コンソールはこの登録トークンを知りません。新しいトークンを作ってください", "the console does not know this enrolment token: make a new one there"},
	CodeTokenExpired: {"登録トークンの期限が切れています。新しいトークンを作ってください", "the enrolment token has expired: make a new one"},
	CodeTokenUsedUp:  {"登録トークンは決められた回数だけ使われました。新しいトークンを作ってください", "the enrolment token has been used as often as it allows: make a new one"},
	CodeTokenRevoked: {"登録トークンは取り消されています。新しいトークンを作ってください", "the enrolment token was revoked: make a new one"},
	CodePin: {"接続先はトークンのコンソールではありません。通信を検査するプロキシが間にないか、コンソールが作り直されていないか確かめてください。秘密の値は送っていません",
		"the other end is not the console of the token: is a TLS-inspecting proxy in between, or was the console made anew? The secret was not sent"},
	CodeClock:       {"コンソールの証明書がこのPCの時計では有効期間外です。時計を合わせてください", "the console's certificate is not valid by this PC's clock: set the clock"},
	CodeCertExpired: {"このPCの証明書の期限が切れています。新しいトークンで登録し直してください", "this PC's certificate has expired: enrol again with a new token"},
	CodeCertUnknown: {"このPCの証明書はもう使えません。別の登録で置き換えられたか、別のコンソールのものです。新しいトークンで登録し直してください",
		"this PC's certificate is not accepted: it was replaced by another enrolment or is another console's; enrol again with a new token"},
	CodeRevoked: {"このPCの登録はコンソールで取り消されています", "this PC's enrolment was revoked at the console"},
	CodeName:    {"コンソールの名前を解決できません。DNSかhostsファイルを確かめてください", "the console's name cannot be resolved: check DNS or the hosts file"},
	CodeRefused: {"コンソールに接続できません。コンソールが動いているか、ポートとファイアウォールを確かめてください", "the console cannot be reached: is it running, does a firewall block its port?"},
	CodeTimeout: {"コンソールからの応答がありません。経路とファイアウォールを確かめてください", "the console does not answer: check the network and firewalls in between"},
	CodeRequest: {"コンソールがこの要求を受け付けません。両方の版を確かめてください", "the console does not accept the request: compare the versions of both programs"},
	CodeBusy:    {"コンソールが混み合っています。しばらくして自動的にやり直します", "the console is busy: try again in a while"},
	CodeConsole: {"コンソール側で問題が起きています。コンソールのログを確かめてください", "the console has trouble of its own: see its log"},
	CodeStore:   {"登録情報を保存できません。権限と空き容量を確かめてください", "the identity cannot be stored: check rights and free space"},
	CodeIdentity: {"保存されている登録情報を読み取れません。新しいトークンで登録し直してください",
		"the stored identity cannot be read: enrol again with a new token"},
	CodeAddress: {"コンソールの証明書にこの接続先の名前がありません。コンソールの設定 names に加えてください",
		"the console's certificate does not hold this address: add it to names in the console's settings"},
	CodeAnswer: {"コンソールのものではない応答です。プロキシのログイン画面が間にないか確かめてください",
		"the answer is not one of a console: does a proxy ask for a sign-in in between?"},
	CodeTLS:      {"TLS の接続に失敗しました", "the TLS connection failed"},
	CodeClockOff: {"このPCの時計とコンソールの時計がずれています", "the clocks of this PC and the console differ"},
}

// Error is trouble with an identity, told in both languages.
type Error struct {
	Code   string // "ENR-06"
	JA, EN string // what it is and what to do
	Err    error  // the cause; may be nil
}

// newError makes an Error of a code's text.
func newError(code string, cause error) *Error {
	t := texts[code]
	return &Error{code, t.ja, t.en, cause}
}

func (e *Error) Error() string { return e.Text("en") }

// Text is the message in a language, with its code and cause.
func (e *Error) Text(lang string) string {
	s := e.EN
	if lang == "ja" {
		s = e.JA
	}
	s = e.Code + ": " + s
	if e.Err != nil {
		s += " (" + e.Err.Error() + ")"
	}
	return s
}

// Passing reports whether the same may work later with nothing changed on this
// PC: not where the token is refused, the other end is another console, or the
// identity cannot be stored.
func (e *Error) Passing() bool {
	switch e.Code {
	case CodeToken, CodeTokenUnknown, CodeTokenExpired, CodeTokenUsedUp, CodeTokenRevoked, CodePin, CodeRequest, CodeStore:
		return false
	}
	return true
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Wire is the error as the console answers it.
func Wire(code string, now time.Time) wire.Error {
	t := texts[code]
	return wire.Error{Code: code, JA: t.ja, EN: t.en, Now: now.UTC()}
}

// Codes maps every code to its texts in Japanese and English.
func Codes() map[string][2]string {
	m := make(map[string][2]string, len(texts))
	for c, t := range texts {
		m[c] = [2]string{t.ja, t.en}
	}
	return m
}

// ClockWarning says that the console's clock is offset ahead of this PC's; ok is
// false where that is not worth telling.
func ClockWarning(offset time.Duration) (e *Error, ok bool) {
	if offset > -ClockTolerance && offset < ClockTolerance {
		return nil, false
	}
	e = newError(CodeClockOff, nil)
	e.JA, e.EN = clockTexts(offset)
	return e, true
}

func clockTexts(offset time.Duration) (ja, en string) {
	if offset > 0 {
		return "このPCの時計はコンソールより" + duration(offset, "ja") + "遅れています。時計を合わせてください",
			"this PC's clock is " + duration(offset, "en") + " behind the console's: set the clock"
	}
	return "このPCの時計はコンソールより" + duration(offset, "ja") + "進んでいます。時計を合わせてください",
		"this PC's clock is " + duration(offset, "en") + " ahead of the console's: set the clock"
}
