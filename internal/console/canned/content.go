package canned

import (
	"fmt"
	"strings"
	"time"

	"sekisho/internal/alert"
	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// Rules whose alerts are made up here. The texts follow the shipped pack's form.
var (
	scam = ruleText{alert.Rule{ID: "7a1c6a0e-52d4-4a39-8b49-0d3c4e0f2a11", Name: "Unapproved remote-access tool started", Version: "2026-11-01", Table: "SCAM-1"}, alert.High,
		alert.Text{JA: "{host.name} で承認されていない遠隔操作ツール {sekisho.remote_tool.name} が起動した（{user.name}）", EN: "Unapproved remote-access tool {sekisho.remote_tool.name} started on {host.name} ({user.name})"},
		alert.Text{JA: "まず利用者本人に電話し、画面に警告や電話番号が出ていないか聞いてください。出ていれば、通話を切り、LANケーブルを抜き、電源は切らずに待つよう伝えてください。", EN: "Call the user and ask whether a warning or a phone number is on the screen. If so: hang up that call, unplug the network, leave the power on and wait."},
		[]string{"#2024-590", "#2024-510", "#2024-489", "#2024-245"}}
	usbCopy = ruleText{alert.Rule{ID: "b3f0a1d2-0f65-4c53-9e52-52f4a7f0c3a3", Name: "Many files copied to removable media", Version: "2026-11-01", Table: "USB-3"}, alert.High,
		alert.Text{JA: "{user.name} が {host.name} から外部媒体へ {sekisho.alert.totals.files}（{sekisho.alert.totals.bytes}）をコピーした", EN: "{user.name} copied {sekisho.alert.totals.files} ({sekisho.alert.totals.bytes}) from {host.name} to removable media"},
		alert.Text{JA: "媒体が管理台帳にあるか、持ち出しの申請が出ているかを確かめ、なければ所属長に連絡して媒体を預かってください。証拠のファイル名から、個人情報が含まれるかを判断できます。", EN: "Check that the medium is in the ledger and that carrying it out was requested. If not, tell the head of department and take the medium into custody. The file names below show whether personal data is on it."},
		[]string{"#2024-549", "#2023-416", "#2024-495", "#2024-246"}}
	usbAttach = ruleText{alert.Rule{ID: "c4d9b5a8-6a0e-4b0f-8c8c-1c2f3d4e5f60", Name: "Unregistered storage device attached", Version: "2026-11-01", Table: "USB-1"}, alert.Medium,
		alert.Text{JA: "管理台帳にない記憶装置 {device.product.name} が {host.name} に接続された", EN: "Storage device {device.product.name}, not in the ledger, attached to {host.name}"},
		alert.Text{JA: "持ち主と用途を聞き、業務に要るなら台帳に登録してください。私物なら使用をやめてもらってください。", EN: "Ask whose it is and what for. Register it if work needs it; if it is private, have it removed."},
		[]string{"#2023-416", "#2024-246", "#2024-376"}}
	share = ruleText{alert.Rule{ID: "d5e8c6b7-7b1f-4c1a-9d9d-2d3a4e5f6a71", Name: "Burst copy from a protected share", Version: "2026-11-01", Table: "SHR-1"}, alert.High,
		alert.Text{JA: "{user.name} が共有 {sekisho.source.share} から {sekisho.alert.totals.files} をまとめてコピーした", EN: "{user.name} copied {sekisho.alert.totals.files} from {sekisho.source.share} at once"},
		alert.Text{JA: "担当業務に要るコピーかを所属長に確かめてください。", EN: "Ask the head of department whether the work needs this copy."}, []string{"#2023-416"}}
	leaver = ruleText{alert.Rule{ID: "e6f7d7c6-8c2a-4d2b-8e8e-3e4b5f6a7b82", Name: "Person about to leave copies many files", Version: "2026-11-01", Table: "LVR-1"}, alert.Critical,
		alert.Text{JA: "退職予定者 {user.name}（最終日 {sekisho.person.last_day}）が外部媒体へ {sekisho.alert.totals.files} をコピーした", EN: "{user.name}, leaving on {sekisho.person.last_day}, copied {sekisho.alert.totals.files} to removable media"},
		alert.Text{JA: "本人には触れず、人事と所属長に連絡してください。媒体の返却を最終日より前に求め、過去90日の記録を確かめてください。", EN: "Do not confront the person. Tell HR and the head of department, have the medium returned before the last day, and look at the past 90 days."},
		[]string{"#2024-495", "#2024-358", "#2023-114", "#2024-351"}}
	sensorDown = ruleText{alert.Rule{ID: "f7a6e8d5-9d3b-4e3c-9f9f-4f5c6a7b8c93", Name: "Sensor delivers nothing", Version: "2026-11-01", Table: "HLT-3"}, alert.Low,
		alert.Text{JA: "{host.name} の監視が一部働いていません（{sekisho.sensor}: {message}）", EN: "{host.name} is watched only in part ({sekisho.sensor}: {message})"},
		alert.Text{JA: "端末の画面で理由を確かめ、sekisho-agent doctor を実行してください。", EN: "See the reason under PCs and run sekisho-agent doctor."}, []string{"#2023-112"}}
)

type ruleText struct {
	rule          alert.Rule
	level         alert.Level
	title, advice alert.Text
	incidents     []string
}

// make returns an alert of the rule whose evidence is events, the last one
// deciding.
func (r ruleText) make(count int64, totals map[string]int64, events ...*event.Event) *alert.Alert {
	last := events[len(events)-1]
	host, _ := last.Get("host.name")
	user, _ := last.Get("user.name")
	by := map[string]string{"host.name": host.String(), "user.name": user.String()}
	a := &alert.Alert{Time: last.Time, ID: alert.ID(r.rule.ID, by, last.ID), Rule: r.rule, Level: r.level, Title: r.title, Advice: r.advice,
		Group: alert.Group(r.rule.Table, by), Incidents: r.incidents, FirstSeen: events[0].Time, LastSeen: last.Time, Count: count,
		Totals: totals, Evidence: events, EvidenceTotal: int64(len(events)), Event: last}
	if totals != nil {
		a.Keys = by
		a.EvidenceTotal = max(a.EvidenceTotal, totals["files"])
	}
	return a
}

var people = []struct{ user, dept string }{
	{"sato.h", "総務課"}, {"suzuki", "人事課"}, {"takahashi.k", "営業一課"}, {"tanaka", "市民課"}, {"ito.m", "教育委員会"},
	{"watanabe", "財政課"}, {"yamamoto", "情報システム課"}, {"nakamura.y", "営業二課"}, {"kobayashi", "福祉課"}, {"kato", "広報課"},
}

func base(action event.Action, at time.Time, i int) *event.Event {
	p := people[i%len(people)]
	e := event.New(action, at)
	e.Sensor = "fanotify"
	name, sys := fmt.Sprintf("PC-%04d", 1040+7*(i%len(people))), "windows"
	if i%4 == 3 {
		name, sys = fmt.Sprintf("ws-%02d", 10+i%len(people)), "linux"
	}
	e.Host = &event.Host{ID: fmt.Sprintf("host-%d", i%len(people)), Name: name, OSType: sys}
	e.Agent = &event.Agent{ID: fmt.Sprintf("0192f0aa-0000-7000-8000-%012d", i%len(people)), Version: "0.1.0"}
	e.User = &event.User{ID: fmt.Sprint(1000 + i), Name: p.user}
	e.Context = &event.Context{HostDepartment: p.dept, WorkTime: "in"}
	return e
}

func stick(e *event.Event) {
	e.Device = &event.Device{VendorID: "0951", ProductID: "1666", VendorName: "Kingston", ProductName: "DataTraveler 3.0",
		SerialNumber: "E0D55EA574F2F541A9F2", Path: "1-4.2", Interfaces: []string{"08/06/50"}, Kinds: []string{"storage"}}
	e.Context.DeviceLedger = "unregistered"
}

// Copies are n file copies to a stick, a second apart and ending at the time at.
func Copies(i, n int, at time.Time) []*event.Event {
	names := []string{"受講者名簿_2026", "成績一覧", "住所録", "見積書", "契約書_控え", "面談記録", "顧客名簿", "議事録", "図面A-12", "給与台帳"}
	var out []*event.Event
	for j := range n {
		e := base(event.FileCopied, at.Add(time.Duration(j-n+1)*time.Second), i)
		file := fmt.Sprintf("%s_%02d.xlsx", names[j%len(names)], j+1)
		stick(e)
		e.Process = &event.Process{PID: event.Some(int64(4120)), Name: "explorer.exe", Executable: `C:\Windows\explorer.exe`, CommandLine: `C:\Windows\explorer.exe`, Signer: "Microsoft Windows"}
		e.File = &event.File{Path: `E:\持出し\` + file, Name: file, Extension: "xlsx", Size: event.Some(int64(153_000 + 1_700*j)), VolumeKind: event.VolumeRemovable}
		e.Volume = &event.Volume{DOSName: "E:", FileSystemType: "exFAT", BusType: "usb", Removable: event.Some(true), Size: event.Some(int64(31_000_000_000)), Kind: event.VolumeRemovable, SerialNumber: "E0D55EA574F2F541A9F2", USBPath: "1-4.2"}
		e.Copy = &event.Copy{SourcePath: `\\fs01\` + people[i%len(people)].dept + `\名簿\` + file, SourceVolumeKind: event.VolumeNetwork, SourceShare: `\\fs01\` + people[i%len(people)].dept,
			Evidence: "same-process", Confidence: "high", Files: event.Some(int64(1)), Bytes: event.Some(int64(153_000 + 1_700*j))}
		out = append(out, e)
	}
	return out
}

// Alerts are made-up alerts of the hours before now, n of them, oldest first.
func Alerts(n int, now time.Time) []*alert.Alert {
	var out []*alert.Alert
	for i := n - 1; i >= 0; i-- {
		out = append(out, Alert(i, now.Add(-time.Duration(i)*23*time.Minute-time.Duration(i*i%17)*time.Second)))
	}
	return out
}

// Alert is one made-up alert; what it is about depends on i.
func Alert(i int, at time.Time) *alert.Alert {
	switch i % 7 {
	case 0:
		e := base(event.ProcessStarted, at, i)
		e.Sensor = "etw"
		e.Process = &event.Process{PID: event.Some(int64(9120)), Name: "AnyDesk.exe", Executable: `C:\Users\` + e.User.Name + `\Downloads\AnyDesk.exe`,
			CommandLine: `"C:\Users\` + e.User.Name + `\Downloads\AnyDesk.exe" --install`, Signer: "philandro Software GmbH", SignatureStatus: "trusted", Elevation: "full",
			SHA256: strings.Repeat("5f3a9c", 10) + "d41e", StartedBy: "browser",
			Parent:     &event.Parent{PID: event.Some(int64(7001)), Name: "msedge.exe", Executable: `C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe`},
			RemoteTool: &event.RemoteTool{ID: "anydesk", Name: "AnyDesk", Category: "remote-desktop", Approved: event.Some(false)}}
		return scam.make(1+int64(i%3), nil, e)
	case 1:
		ev := Copies(i, alert.MaxEvidence, at)
		return usbCopy.make(1, map[string]int64{"files": 80, "bytes": 12_345_678}, ev...)
	case 2, 5:
		e := base(event.USBAttached, at, i)
		e.Sensor = "uevent"
		stick(e)
		if i%7 == 5 {
			e.Device.Kinds, e.Device.Oddities = []string{event.KindStorage, event.KindKeyboard}, []string{event.OddTypesAndStore, event.OddSameSerial}
		}
		return usbAttach.make(1, nil, e)
	case 3:
		ev := Copies(i, 12, at)
		return share.make(2, map[string]int64{"files": 1_240, "bytes": 3_456_000_000}, ev...)
	case 4:
		ev := Copies(i, 8, at)
		for _, e := range ev {
			e.Context.PersonLists, e.Context.PersonLastDay, e.Context.WorkTime = []string{"leaver"}, "2026-12-31", "off"
		}
		return leaver.make(3, map[string]int64{"files": 31, "bytes": 982_000_000}, ev...)
	}
	e := base(event.SensorDegraded, at, i)
	e.Sensor, e.User, e.Message = "inotify", nil, "fanotify: operation not permitted; using inotify"
	return sensorDown.make(1, nil, e)
}

// TestAlert is what a self-test makes.
func TestAlert(at time.Time) *alert.Alert {
	a := Alert(0, at)
	a.Event.Test = event.Some(true)
	return a
}

// Hostile is an alert whose every text is an attack on the page that shows it.
func Hostile(at time.Time, text string) *alert.Alert {
	e := base(event.FileCopied, at, 1)
	e.Host = &event.Host{ID: text, Name: text, OSType: text}
	e.Agent = &event.Agent{ID: text, Version: text}
	e.User = &event.User{ID: text, Name: text, Domain: text}
	e.Sensor, e.Message, e.SessionID = text, text, text
	e.Device = &event.Device{VendorID: text, ProductID: text, VendorName: text, ProductName: text, SerialNumber: text, Path: text, Kinds: []string{text}}
	e.Volume = &event.Volume{MountName: text, DeviceName: text, DOSName: text, FileSystemType: text, Kind: text, Share: text, SerialNumber: text}
	e.File = &event.File{Path: text, Name: text, OriginURL: text, VolumeKind: text, Audience: text, Protected: text, SHA256: text}
	e.Copy = &event.Copy{SourcePath: text, SourceVolumeKind: text, SourceShare: text, SourceShareDepartment: text, Evidence: text}
	e.Process = &event.Process{Name: text, Executable: text, CommandLine: text, Signer: text, StartedBy: text,
		Parent: &event.Parent{Name: text, Executable: text, CommandLine: text}, RemoteTool: &event.RemoteTool{ID: text, Name: text, Category: text}}
	e.Network = &event.Network{DestinationDomain: text, DestinationIP: text}
	e.Print = &event.Print{Printer: text, Document: text}
	e.Context = &event.Context{HostDepartment: text, HostTags: []string{text}, PersonDept: text, PersonLists: []string{text}, PersonLastDay: text, WorkTime: text, DeviceLedger: text, RemoteSessionID: text}
	r := ruleText{alert.Rule{ID: "00000000-0000-4000-8000-00000000bad0", Name: text, Version: text, Table: ""}, alert.High,
		alert.Text{JA: "名前 {user.name} 装置 {device.product.name} " + text, EN: "name {user.name} device {device.product.name} " + text},
		alert.Text{JA: text, EN: text}, []string{text, "#2024-549"}}
	return r.make(2, map[string]int64{"files": 3, text: 7}, e)
}

// Endpoints are made-up PCs in all states there are.
func Endpoints(now time.Time) []endpoint.Record {
	var out []endpoint.Record
	for i := range 23 {
		p := people[i%len(people)]
		name, sys, version, mech := fmt.Sprintf("PC-%04d", 1040+7*i), "windows", "Windows 11 Pro 24H2", "etw"
		if i%4 == 3 {
			name, sys, version, mech = fmt.Sprintf("ws-%02d", 10+i), "linux", "Debian GNU/Linux 12 (bookworm)", "fanotify"
		}
		st := &endpoint.Status{Time: now.Add(-20 * time.Second), AgentVersion: "0.1.0", HostName: name, OS: sys, OSVersion: version, Department: p.dept,
			Started: now.Add(-50 * time.Hour), CPUSeconds: 412, MemoryBytes: 38_400_000, Events: 182_300,
			Sensors: []endpoint.Sensor{
				{Name: "usb", State: endpoint.SensorOK, Mechanism: "uevent", Events: 42},
				{Name: "volume", State: endpoint.SensorOK, Mechanism: "mountinfo", Events: 17},
				{Name: "file", State: endpoint.SensorOK, Mechanism: mech, Events: 120_411, Watching: []string{`D:\人事`, `\\fs01\名簿`}},
				{Name: "process", State: endpoint.SensorOK, Mechanism: "proc-connector", Events: 61_830},
				{Name: "session", State: endpoint.SensorLimited, Mechanism: "wts", Reason: "times are to two seconds", Events: 6},
				{Name: "print", State: endpoint.SensorUnavailable, Reason: "prints are seen on Windows only"},
			},
			Alerts: endpoint.Queue{MaxBytes: 64 << 20}, Activity: endpoint.Queue{MaxBytes: 512 << 20, Records: int64(i % 5), Bytes: int64(i%5) * 812},
			Contact:  endpoint.Contact{Console: "https://sekisho.example.jp:8443", LastSuccess: now.Add(-20 * time.Second), CertExpires: now.Add(21 * 24 * time.Hour)},
			Settings: endpoint.Settings{File: "/etc/sekisho/agent.yaml", LoadedAt: now.Add(-50 * time.Hour)},
			Rules:    endpoint.Rules{Pack: "2026.11.1", Active: 14}}
		rec := endpoint.Record{AgentID: fmt.Sprintf("0192f0aa-0000-7000-8000-%012d", i), HostID: fmt.Sprintf("4c4c4544-%04d", i), HostName: name, OS: sys, OSVersion: version,
			Department: p.dept, Enrolled: now.Add(-40 * 24 * time.Hour), LastSeen: now.Add(-time.Duration(5+i) * time.Second), Status: st, OpenAlerts: []int{0, 2, 0, 0, 1}[i%5]}
		switch i {
		case 2:
			st.Sensors[2].State, st.Sensors[2].Mechanism, st.Sensors[2].Reason = endpoint.SensorDegraded, "inotify", "fanotify: operation not permitted; watching 64 folders by inotify"
			st.Sensors[2].Lost, st.Lost = 12, 12
			st.Contact.ClockOffset = 3 * time.Minute
		case 5:
			rec.LastSeen = now.Add(-9 * time.Hour)
			st.Activity.Records, st.Activity.Bytes = 3_120, 4_100_000
		case 8:
			rec.LastSeen = now.Add(-3 * time.Minute)
		case 11:
			st.Settings.Problems = []string{`agent.yaml:14:7: sensors.file: unknown key "pathes" (did you mean "paths"?)`}
			st.Sensors[3].State, st.Sensors[3].Reason = endpoint.SensorDown, "proc connector: permission denied"
			st.Activity.Error = "no space left on device"
			st.Contact.CertExpires = now.Add(3 * 24 * time.Hour)
		case 13:
			rec.LastSeen, rec.Status, rec.OpenAlerts = time.Time{}, nil, 0
		case 17:
			rec.Revoked = true
		}
		out = append(out, rec)
	}
	return out
}

// Full returns a store with alerts, endpoints and some triage done by user.
func Full(now time.Time, user string) *Store {
	s := NewStore()
	for i, a := range Alerts(46, now) {
		s.AddAlert(a, fmt.Sprintf("0192f0aa-0000-7000-8000-%012d", (45-i)%len(people)), a.Time.Add(700*time.Millisecond))
	}
	for _, r := range Endpoints(now) {
		s.AddEndpoint(r)
	}
	s.AddAlert(TestAlert(now.Add(-40*time.Minute)), "0192f0aa-0000-7000-8000-000000000003", now.Add(-40*time.Minute))
	other := "yamamoto"
	for i := range s.alerts {
		r := &s.alerts[i]
		if r.Test() {
			continue
		}
		at := r.Time.Add(11 * time.Minute)
		switch {
		case i > 30:
			r.State, r.Reason, r.Assignee = alert.Closed, alert.Reasons[i%4], other
			r.Log = []alert.LogEntry{{Time: at, User: other, State: alert.Working, Assignee: other}, {Time: at.Add(9 * time.Minute), User: other, State: alert.Closed, Reason: r.Reason, Note: "所属長に電話で確認。申請番号 R8-114。"}}
		case i%6 == 4:
			r.State, r.Assignee = alert.Working, user
			r.Log = []alert.LogEntry{{Time: at, User: user, State: alert.Working, Assignee: user}}
		case i%9 == 5:
			r.State, r.Assignee = alert.Waiting, other
			r.Log = []alert.LogEntry{{Time: at, User: other, State: alert.Working, Assignee: other}, {Time: at.Add(time.Minute), User: other, State: alert.Waiting, Assignee: other, Note: "本人不在。明朝、折り返しを待つ。"}}
		case i%11 == 3:
			r.State, r.Assignee = alert.Working, other
		}
	}
	return s
}
