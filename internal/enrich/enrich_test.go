package enrich

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sekisho/internal/catalog"
	"sekisho/internal/config"
	"sekisho/internal/event"
)

const settings = `
host:
  department: 総務課
  tags: [sensitive]
protected:
  - {label: 住民情報, paths: ["/srv/juki/**", 'D:\juki\**', '**/住民/**'], shares: ['\\fs01\juki$'], department: 市民課, audience: department}
  - {label: plain, paths: [/srv/plain]}
shares:
  - {share: '\\fs01\soumu*', department: 総務課, audience: department}
  - {share: '\\FS01\*', department: その他, audience: broad}
  - {share: 'nas:/export/hr', department: 人事課}
remote_access:
  approved:
    - {tool: anydesk, path: 'C:\Program Files*\AnyDesk\*.exe', signer: AnyDesk Software GmbH, account: 'EXAMPLE\helpdesk', expires: 2026-11-30}
    - {tool: rustdesk}
devices:
  approved:
    - {vendor: "0951", product: "1666", serial: AAA, expires: 2026-11-30}
    - {vendor: "0951", product: "1666", serial: BBB}
    - {vendor: "0951", product: "1666", serial: LOST1}
    - {vendor: "05ac", product: "12a8"}
  lost:
    - {serial: lost1}
work_hours:
  holidays: {extra: [2026-06-01]}
people:
  - {id: "1001", accounts: ['EXAMPLE\t.yamada', yamada], department: 市民課, lists: [leaver], last_day: 2026-12-31}
  - {id: "1002", accounts: [suzuki]}
`

func stage(t testing.TB) *Stage {
	t.Helper()
	cfg, err := config.ParseAgent("test.yaml", []byte(settings))
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{Config: cfg})
}

func decode(t testing.TB, text string) *event.Event {
	t.Helper()
	e, err := event.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Each case is events in JSON, one per line, and fields of the last one that are
// expected: "name=value", or "name" alone for one that must be absent.
func TestApply(t *testing.T) {
	tests := []struct {
		name   string
		events string
		want   []string
	}{
		{"host", `{"event.action":"agent-started"}`, []string{"sekisho.host.department=総務課", "sekisho.host.tags=sensitive", "sekisho.time.work", "sekisho.person.id"}},
		{"host as recorded", `{"sekisho.host.department":"税務課","sekisho.host.tags":[]}`, []string{"sekisho.host.department=税務課", "sekisho.host.tags="}},

		{"work begins, in Tokyo", `{"@timestamp":"2026-11-19T23:30:00Z"}`, []string{"sekisho.time.work=in"}},
		{"a minute before work", `{"@timestamp":"2026-11-19T23:29:59Z"}`, []string{"sekisho.time.work=off"}},
		{"the end of work is off", `{"@timestamp":"2026-11-20T08:15:00Z"}`, []string{"sekisho.time.work=off"}},
		{"a Saturday", `{"@timestamp":"2026-11-21T03:00:00Z"}`, []string{"sekisho.time.work=off"}},
		{"a national holiday", `{"@timestamp":"2026-11-23T03:00:00Z"}`, []string{"sekisho.time.work=holiday"}},
		{"a holiday in Tokyo, the day before in UTC", `{"@timestamp":"2026-11-22T15:00:00Z"}`, []string{"sekisho.time.work=holiday"}},
		{"the year's end", `{"@timestamp":"2026-12-29T03:00:00Z"}`, []string{"sekisho.time.work=holiday"}},
		{"28 December", `{"@timestamp":"2026-12-28T03:00:00Z"}`, []string{"sekisho.time.work=in"}},
		{"3 January", `{"@timestamp":"2028-01-03T03:00:00Z"}`, []string{"sekisho.time.work=holiday"}},
		{"a day of the site", `{"@timestamp":"2026-06-01T03:00:00Z"}`, []string{"sekisho.time.work=holiday"}},
		{"a substitute holiday", `{"@timestamp":"2026-05-06T03:00:00Z"}`, []string{"sekisho.time.work=holiday"}},
		{"a day between holidays", `{"@timestamp":"2026-09-22T03:00:00Z"}`, []string{"sekisho.time.work=holiday"}},

		{"a person on the last day", `{"@timestamp":"2026-12-31T14:59:59Z","user.name":"yamada"}`, []string{"sekisho.person.left=false"}},
		{"a person after the last day", `{"@timestamp":"2026-12-31T15:00:00Z","user.name":"yamada"}`, []string{"sekisho.person.left=true"}},
		{"a person without an event time", `{"user.name":"yamada"}`, []string{"sekisho.person.left"}},
		{"person by domain and name", `{"user.name":"T.Yamada","user.domain":"example"}`, []string{"sekisho.person.id=1001", "sekisho.person.department=市民課", "sekisho.person.lists=leaver", "sekisho.person.last_day=2026-12-31"}},
		{"person by name in any domain", `{"user.name":"yamada","user.domain":"PC01"}`, []string{"sekisho.person.id=1001"}},
		{"same name in another domain", `{"user.name":"t.yamada","user.domain":"OTHER"}`, []string{"sekisho.person.id"}},
		{"person who is root by sudo", `{"user.name":"yamada","user.effective.name":"root"}`, []string{"sekisho.person.id=1001", "sekisho.person.lists=leaver", "user.effective.name=root"}},
		{"root who became that person", `{"user.name":"root","user.effective.name":"yamada"}`, []string{"sekisho.person.id", "sekisho.person.lists"}},
		{"person as recorded, the rest by id", `{"user.name":"suzuki","sekisho.person.id":"1001","sekisho.person.lists":["temp"]}`, []string{"sekisho.person.id=1001", "sekisho.person.lists=temp", "sekisho.person.department=市民課"}},
		{"person recorded as nobody", `{"user.name":"yamada","sekisho.person.id":""}`, []string{"sekisho.person.id=", "sekisho.person.department"}},

		{"stick in the ledger", `{"@timestamp":"2026-11-20T03:00:00Z","event.action":"usb-attached","device.vendor.id":"0951","device.product.id":"1666","device.serial_number":"aaa","sekisho.device.kinds":["storage"]}`, []string{"sekisho.device.ledger=approved"}},
		{"last day of the entry, in Tokyo", `{"@timestamp":"2026-11-30T14:59:59Z","event.action":"usb-attached","device.vendor.id":"0951","device.product.id":"1666","device.serial_number":"AAA","sekisho.device.kinds":["storage"]}`, []string{"sekisho.device.ledger=approved"}},
		{"the entry is over", `{"@timestamp":"2026-11-30T15:00:00Z","event.action":"usb-attached","device.vendor.id":"0951","device.product.id":"1666","device.serial_number":"AAA","sekisho.device.kinds":["storage"]}`, []string{"sekisho.device.ledger=expired"}},
		{"ten days before the entry ends", `{"@timestamp":"2026-11-20T14:59:59Z","event.action":"usb-attached","device.vendor.id":"0951","device.product.id":"1666","device.serial_number":"AAA","sekisho.device.kinds":["storage"]}`, []string{"sekisho.expiry.of=device", "sekisho.expiry.name=aaa", "sekisho.expiry.ends=2026-11-30", "sekisho.expiry.days=10", "sekisho.expiry.within=14"}},
		{"the day after, in Tokyo, by its volume", `{"@timestamp":"2026-11-23T15:00:00Z","event.action":"volume-mounted","volume.mount_name":"/media/a","volume.removable":true,"volume.serial_number":"AAA"}`, []string{"sekisho.expiry.days=6", "sekisho.expiry.within=7"}},
		{"its last day", `{"@timestamp":"2026-11-30T14:59:59Z","event.action":"usb-attached","device.serial_number":"AAA","sekisho.device.kinds":["storage"]}`, []string{"sekisho.expiry.days=0", "sekisho.expiry.within=1"}},
		{"it has two months", `{"@timestamp":"2026-09-30T03:00:00Z","event.action":"usb-attached","device.serial_number":"AAA","sekisho.device.kinds":["storage"]}`, []string{"sekisho.expiry.days=61", "sekisho.expiry.within"}},
		{"an entry without an end", `{"@timestamp":"2026-11-20T03:00:00Z","event.action":"usb-attached","device.serial_number":"BBB","sekisho.device.kinds":["storage"]}`, []string{"sekisho.device.ledger=approved", "sekisho.expiry.ends", "sekisho.expiry.of"}},
		{"a copy says nothing of it", `{"@timestamp":"2026-11-20T03:00:00Z","event.action":"file-copied","file.path":"/media/a/x","volume.serial_number":"AAA","sekisho.volume.kind":"removable"}`, []string{"sekisho.device.ledger=approved", "sekisho.expiry.ends"}},
		{"an end as recorded", `{"@timestamp":"2026-11-20T03:00:00Z","event.action":"usb-attached","device.serial_number":"AAA","sekisho.device.kinds":["storage"],"sekisho.expiry.ends":"2026-11-21"}`, []string{"sekisho.expiry.of", "sekisho.expiry.days=1", "sekisho.expiry.within=1"}},
		{"an end that is no day", `{"@timestamp":"2026-11-20T03:00:00Z","event.action":"expiry-near","sekisho.expiry.ends":"soon"}`, []string{"sekisho.expiry.ends=soon", "sekisho.expiry.days"}},
		{"a certificate that is over", `{"@timestamp":"2026-11-20T03:00:00Z","event.action":"expiry-near","sekisho.expiry.ends":"2026-11-18"}`, []string{"sekisho.expiry.days=-2", "sekisho.expiry.within=1"}},
		{"stick not in the ledger", `{"event.action":"usb-attached","device.vendor.id":"0951","device.product.id":"1666","device.serial_number":"ZZZ","sekisho.device.kinds":["storage"]}`, []string{"sekisho.device.ledger=unregistered"}},
		{"right serial number, wrong product", `{"event.action":"usb-attached","device.vendor.id":"0951","device.product.id":"9999","device.serial_number":"BBB","sekisho.device.kinds":["storage"]}`, []string{"sekisho.device.ledger=unregistered"}},
		{"lost, though approved", `{"event.action":"usb-attached","device.vendor.id":"0951","device.product.id":"1666","device.serial_number":"LOST1","sekisho.device.kinds":["storage"]}`, []string{"sekisho.device.ledger=lost"}},
		{"a second stick with the serial number of one that is attached", `{"event.action":"usb-attached","device.vendor.id":"0951","device.product.id":"1666","device.serial_number":"BBB","sekisho.device.kinds":["storage"],"sekisho.usb.oddities":["same-serial"]}`, []string{"sekisho.device.ledger=unregistered"}},
		{"a second lost stick with one serial number", `{"event.action":"usb-attached","device.vendor.id":"0951","device.product.id":"1666","device.serial_number":"LOST1","sekisho.device.kinds":["storage"],"sekisho.usb.oddities":["same-serial"]}`, []string{"sekisho.device.ledger=lost"}},
		{"a second phone of a whole product with one serial number", `{"event.action":"usb-attached","device.vendor.id":"05AC","device.product.id":"12a8","device.serial_number":"X","sekisho.device.kinds":["mtp"],"sekisho.usb.oddities":["same-serial"]}`, []string{"sekisho.device.ledger=approved"}},
		{"a whole product", `{"event.action":"usb-attached","device.vendor.id":"05AC","device.product.id":"12a8","sekisho.device.kinds":["mtp"]}`, []string{"sekisho.device.ledger=approved"}},
		{"a stick without a serial number", `{"event.action":"usb-attached","device.vendor.id":"0951","device.product.id":"1666","sekisho.device.kinds":["storage"]}`, []string{"sekisho.device.ledger=unregistered"}},
		{"a keyboard", `{"event.action":"usb-attached","device.vendor.id":"0951","device.product.id":"1666","sekisho.device.kinds":["keyboard"]}`, []string{"sekisho.device.ledger"}},
		{"storage by its interface", `{"event.action":"usb-attached","device.vendor.id":"1111","sekisho.usb.interfaces":["08/06/50"]}`, []string{"sekisho.device.ledger=unregistered"}},
		{"ledger as recorded", `{"event.action":"usb-attached","device.serial_number":"LOST1","sekisho.device.kinds":["storage"],"sekisho.device.ledger":"approved"}`, []string{"sekisho.device.ledger=approved"}},
		{"a removable volume", `{"event.action":"volume-mounted","volume.mount_name":"/media/a","volume.removable":true,"volume.serial_number":"BBB"}`, []string{"sekisho.volume.kind=removable", "sekisho.device.ledger=approved"}},
		{"a local volume", `{"event.action":"volume-mounted","volume.mount_name":"/srv","volume.removable":false}`, []string{"sekisho.volume.kind=local", "sekisho.device.ledger"}},
		{"a copy to a removable volume", `{"event.action":"file-copied","file.path":"E:\\a.xlsx","volume.serial_number":"QQQ","volume.vendor_id":"0951","sekisho.volume.kind":"removable"}`, []string{"sekisho.device.ledger=unregistered", "sekisho.file.volume_kind=removable"}},
		{"a copy to a medium nothing is known of", `{"event.action":"file-copied","file.path":"E:\\a.xlsx","sekisho.file.volume_kind":"removable"}`, []string{"sekisho.device.ledger=unregistered"}},

		{"a copy to a volume mounted before", `{"event.action":"volume-mounted","volume.mount_name":"/media/a","volume.removable":true,"volume.serial_number":"BBB"}
			{"event.action":"file-copied","file.path":"/media/a/x/y.pdf"}`, []string{"sekisho.file.volume_kind=removable", "volume.serial_number=BBB", "sekisho.device.ledger=approved"}},
		{"a copy beside that volume", `{"event.action":"volume-mounted","volume.mount_name":"/media/a","volume.removable":true}
			{"event.action":"file-copied","file.path":"/media/ab/y.pdf"}`, []string{"sekisho.file.volume_kind", "volume.removable"}},
		{"the innermost volume counts", `{"event.action":"volume-mounted","volume.mount_name":"/","volume.removable":false}
			{"event.action":"volume-mounted","volume.mount_name":"/media/a","volume.removable":true}
			{"event.action":"file-copied","file.path":"/media/a"}`, []string{"sekisho.file.volume_kind=removable"}},
		{"unmounted meanwhile", `{"event.action":"volume-mounted","volume.dos_name":"E:","volume.removable":true}
			{"event.action":"volume-unmounted","volume.dos_name":"E:"}
			{"event.action":"file-copied","file.path":"e:\\y.pdf"}`, []string{"sekisho.file.volume_kind"}},
		{"from a medium to a share", `{"event.action":"volume-mounted","volume.dos_name":"E:","volume.removable":true,"volume.serial_number":"ZZZ"}
			{"event.action":"file-copied","file.path":"\\\\fs01\\all\\y.pdf","sekisho.source.path":"e:\\y.pdf"}`, []string{"sekisho.source.volume_kind=removable", "sekisho.source.ledger=unregistered", "sekisho.file.share=\\\\fs01\\all", "sekisho.file.audience=broad", "sekisho.device.ledger"}},
		{"a share told without the path on it", `{"event.action":"file-copied","file.path":"/media/a/y.pdf","sekisho.source.share":"\\\\fs01\\soumu"}`, []string{"sekisho.source.volume_kind=network"}},
		{"the same PC, once with its id and once by name only", `{"host.id":"1","host.name":"a","event.action":"volume-mounted","volume.mount_name":"/media/a","volume.removable":true}
			{"host.name":"a","event.action":"file-copied","file.path":"/media/a/y.pdf"}`, []string{"sekisho.file.volume_kind=removable"}},

		{"a protected path", `{"event.action":"file-read","file.path":"/srv/juki/2026/a.csv"}`, []string{"sekisho.file.protected=住民情報", "sekisho.file.audience=department", "file.name=a.csv", "file.extension=csv"}},
		{"case counts on Linux", `{"event.action":"file-read","file.path":"/srv/JUKI/a.csv"}`, []string{"sekisho.file.protected"}},
		{"case and slashes do not count on Windows", `{"event.action":"file-read","file.path":"d:/JUKI\\x\\A.CSV"}`, []string{"sekisho.file.protected=住民情報", "file.extension=csv", "file.name=A.CSV"}},
		{"a long path of Windows", `{"event.action":"file-read","file.path":"\\\\?\\D:\\juki\\a.csv"}`, []string{"sekisho.file.protected=住民情報"}},
		{"a pattern for both systems", `{"event.action":"file-read","file.path":"/home/a/住民/a.csv"}`, []string{"sekisho.file.protected=住民情報"}},
		{"a folder without a star", `{"event.action":"file-read","file.path":"/srv/plain/deep/a"}`, []string{"sekisho.file.protected=plain"}},
		{"a folder beside it", `{"event.action":"file-read","file.path":"/srv/plainer/a"}`, []string{"sekisho.file.protected"}},
		{"a protected share by its path", `{"event.action":"file-copied","file.path":"C:\\a","sekisho.source.path":"\\\\FS01\\Juki$\\x\\a"}`, []string{"sekisho.source.protected=住民情報", "sekisho.source.share=\\\\FS01\\Juki$", "sekisho.source.share_department=市民課", "sekisho.source.volume_kind=network"}},
		{"the first pattern of shares counts", `{"event.action":"file-copied","file.path":"C:\\a","sekisho.source.share":"\\\\fs01\\SOUMU-kyoyu"}`, []string{"sekisho.source.share_department=総務課", "sekisho.source.protected"}},
		{"an NFS share", `{"event.action":"file-copied","file.path":"/home/a","sekisho.source.share":"nas:/export/hr"}`, []string{"sekisho.source.share_department=人事課"}},
		{"a share below it is another", `{"event.action":"file-copied","file.path":"/home/a","sekisho.source.share":"nas:/export/hrx"}`, []string{"sekisho.source.share_department"}},
		{"protection as recorded", `{"event.action":"file-read","file.path":"/srv/juki/a","sekisho.file.protected":"","sekisho.file.audience":"private"}`, []string{"sekisho.file.protected=", "sekisho.file.audience=private"}},

		{"a copy counts as one", `{"event.action":"file-copied","file.path":"/a/b.txt","file.size":10,"sekisho.source.path":"/srv/x"}`, []string{"sekisho.copy.files=1", "sekisho.copy.bytes=10", "sekisho.copy.source_ids=" + sourceID("/srv/x")}},
		{"a copy without a source", `{"event.action":"file-copied","file.path":"C:\\A\\b"}`, []string{"sekisho.copy.files=1", "sekisho.copy.bytes", "sekisho.copy.source_ids=" + sourceID(`c:/a/B`)}},
		{"totals as recorded", `{"event.action":"file-copied","file.path":"/a","file.size":10,"sekisho.copy.files":80,"sekisho.copy.bytes":900,"sekisho.copy.source_ids":["x","y"]}`, []string{"sekisho.copy.files=80", "sekisho.copy.bytes=900", "sekisho.copy.source_ids=x, y"}},
		{"a read is no copy", `{"event.action":"file-read","file.path":"/a","file.size":10}`, []string{"sekisho.copy.files"}},

		{"a tool that is not approved", `{"event.action":"process-started","process.executable":"/home/a/Downloads/AnyDesk","process.entity_id":"p1"}`, []string{"sekisho.remote_tool.id=anydesk", "sekisho.remote_tool.name=AnyDesk", "sekisho.remote_tool.category=remote-desktop", "sekisho.remote_tool.approved=false", "process.name=AnyDesk", "sekisho.remote_session.id=p1"}},
		{"every condition holds", `{"@timestamp":"2026-11-20T03:00:00Z","event.action":"process-started","process.executable":"c:\\program files (x86)\\anydesk\\AnyDesk.exe","process.code_signature.subject_name":"CN=AnyDesk Software GmbH, C=DE","user.name":"HelpDesk","user.domain":"example"}`, []string{"sekisho.remote_tool.approved=true"}},
		{"and how long the approval holds", `{"@timestamp":"2026-11-20T03:00:00Z","event.action":"process-started","process.executable":"c:\\program files (x86)\\anydesk\\AnyDesk.exe","process.code_signature.subject_name":"CN=AnyDesk Software GmbH, C=DE","user.name":"HelpDesk","user.domain":"example"}`, []string{"sekisho.expiry.of=remote-tool", "sekisho.expiry.name=AnyDesk", "sekisho.expiry.days=10", "sekisho.expiry.within=14"}},
		{"approval is over", `{"@timestamp":"2026-12-01T03:00:00Z","event.action":"process-started","process.executable":"c:\\program files (x86)\\anydesk\\AnyDesk.exe","process.code_signature.subject_name":"AnyDesk Software GmbH","user.name":"helpdesk","user.domain":"EXAMPLE"}`, []string{"sekisho.remote_tool.approved=false"}},
		{"no signer is known", `{"@timestamp":"2026-11-20T03:00:00Z","event.action":"process-started","process.executable":"c:\\program files (x86)\\anydesk\\AnyDesk.exe","user.name":"helpdesk","user.domain":"EXAMPLE"}`, []string{"sekisho.remote_tool.approved=false"}},
		{"another place", `{"@timestamp":"2026-11-20T03:00:00Z","event.action":"process-started","process.executable":"c:\\temp\\AnyDesk.exe","process.code_signature.subject_name":"AnyDesk Software GmbH","user.name":"helpdesk","user.domain":"EXAMPLE"}`, []string{"sekisho.remote_tool.approved=false"}},
		{"another domain", `{"@timestamp":"2026-11-20T03:00:00Z","event.action":"process-started","process.executable":"c:\\program files (x86)\\anydesk\\AnyDesk.exe","process.code_signature.subject_name":"AnyDesk Software GmbH","user.name":"helpdesk","user.domain":"PC01"}`, []string{"sekisho.remote_tool.approved=false"}},
		{"approved without conditions", `{"event.action":"process-started","process.executable":"/usr/bin/rustdesk"}`, []string{"sekisho.remote_tool.approved=true"}},
		{"a tool as recorded", `{"event.action":"process-started","process.executable":"/usr/bin/foo","sekisho.remote_tool.id":"rustdesk","sekisho.remote_tool.name":"R"}`, []string{"sekisho.remote_tool.id=rustdesk", "sekisho.remote_tool.name=R", "sekisho.remote_tool.category=remote-desktop", "sekisho.remote_tool.approved=true"}},
		{"recorded as no tool", `{"event.action":"process-started","process.executable":"/usr/bin/anydesk","sekisho.remote_tool.id":""}`, []string{"sekisho.remote_tool.id=", "sekisho.remote_tool.approved", "sekisho.remote_tool.name"}},
		{"a tool connects", `{"event.action":"network-connected","process.executable":"C:\\x\\a.exe","destination.domain":"relay.net.anydesk.com"}`, []string{"sekisho.remote_tool.id=anydesk"}},
		{"a browser on a vendor's page", `{"event.action":"network-connected","process.executable":"C:\\x\\chrome.exe","destination.domain":"anydesk.com"}`, []string{"sekisho.remote_tool.id"}},
		{"an ordinary program", `{"event.action":"process-started","process.executable":"/bin/true","process.parent.executable":"/usr/bin/bash"}`, []string{"sekisho.remote_tool.id", "sekisho.process.started_by=shell", "process.parent.name=bash"}},
		{"started by a browser", `{"event.action":"process-started","process.executable":"C:\\a.exe","process.parent.executable":"C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe"}`, []string{"sekisho.process.started_by=browser"}},
		{"a starter as recorded", `{"event.action":"process-started","process.executable":"C:\\a.exe","process.parent.executable":"C:\\chrome.exe","sekisho.process.started_by":"mail"}`, []string{"sekisho.process.started_by=mail"}},

		{"during a session", `{"event.action":"process-started","process.executable":"/x/anydesk","process.entity_id":"p1"}
			{"event.action":"volume-mounted","volume.mount_name":"/media/a"}`, []string{"sekisho.remote_session.id=p1", "sekisho.remote_session.approved=false"}},
		{"after the session", `{"event.action":"process-started","process.executable":"/x/anydesk","process.entity_id":"p1"}
			{"event.action":"process-ended","process.entity_id":"p1"}
			{"event.action":"volume-mounted","volume.mount_name":"/media/a"}`, []string{"sekisho.remote_session.id"}},
		{"its own end belongs to it", `{"event.action":"process-started","process.executable":"/x/anydesk","process.entity_id":"p1"}
			{"event.action":"process-ended","process.entity_id":"p1"}`, []string{"sekisho.remote_session.id=p1"}},
		{"the oldest of two", `{"event.action":"process-started","process.executable":"/x/anydesk","process.entity_id":"p1"}
			{"event.action":"process-started","process.executable":"/x/rustdesk","process.entity_id":"p2"}`, []string{"sekisho.remote_session.id=p1"}},
		{"the pid was given anew", `{"event.action":"process-started","process.executable":"/x/anydesk","process.entity_id":"p1","process.pid":7}
			{"event.action":"process-started","process.executable":"/bin/true","process.entity_id":"p2","process.pid":7}`, []string{"sekisho.remote_session.id"}},
		{"an end that was missed", `{"@timestamp":"2026-11-20T03:00:00Z","event.action":"process-started","process.executable":"/x/anydesk","process.entity_id":"p1"}
			{"@timestamp":"2026-11-20T15:00:01Z","event.action":"file-read"}`, []string{"sekisho.remote_session.id"}},
		{"an approved tool's session", `{"event.action":"process-started","process.executable":"/x/rustdesk","process.entity_id":"p1"}
			{"event.action":"file-read"}`, []string{"sekisho.remote_session.id=p1", "sekisho.remote_session.approved=true"}},
		{"one of two is not approved", `{"event.action":"process-started","process.executable":"/x/rustdesk","process.entity_id":"p1"}
			{"event.action":"process-started","process.executable":"/x/anydesk","process.entity_id":"p2"}
			{"event.action":"file-read"}`, []string{"sekisho.remote_session.id=p1", "sekisho.remote_session.approved=false"}},
		{"the end of the one that is not approved", `{"event.action":"process-started","process.executable":"/x/anydesk","process.entity_id":"p2"}
			{"event.action":"process-ended","process.entity_id":"p2"}`, []string{"sekisho.remote_session.id=p2", "sekisho.remote_session.approved=false"}},
		{"what came before the session, told late", `{"@timestamp":"2026-11-20T03:00:00.5Z","event.action":"process-started","process.executable":"/x/anydesk","process.entity_id":"p1"}
			{"@timestamp":"2026-11-20T03:00:00.4Z","event.action":"file-read"}`, []string{"sekisho.remote_session.id"}},
		{"a tunnel is no session", `{"event.action":"process-started","process.executable":"/usr/bin/cloudflared","process.entity_id":"p1"}`, []string{"sekisho.remote_session.id", "sekisho.remote_tool.id=cloudflare-tunnel"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := stage(t)
			var e *event.Event
			for line := range strings.Lines(tt.events) {
				e = decode(t, line)
				s.Apply(e)
			}
			for _, w := range tt.want {
				name, want, present := strings.Cut(w, "=")
				got, ok := e.Get(name)
				if ok != present || got.String() != want {
					t.Errorf("%s: got %q (present %v), want %q (present %v)", name, got.String(), ok, want, present)
				}
			}
		})
	}
}

func TestWithoutSettingsLittleIsAdded(t *testing.T) {
	e := decode(t, `{"event.action":"file-read","file.path":"/srv/juki/a"}`)
	New(Options{}).Apply(e)
	if e.Context != nil {
		t.Errorf("context %+v, want none", e.Context)
	}
}

func TestPolicyJoinsTheSettings(t *testing.T) {
	cfg := config.DefaultAgent()
	s := New(Options{Config: cfg, Policy: Policy{
		Department: "from the console",
		Approved:   []config.ApprovedDevice{{Serial: "S"}},
		Lost:       []config.LostDevice{{Serial: "L"}},
		People:     []config.Person{{ID: "9", Accounts: []string{"p"}}},
		Tools:      []config.ApprovedTool{{Tool: "anydesk"}},
	}})
	e := decode(t, `{"event.action":"process-started","process.executable":"/x/anydesk","user.name":"p"}`)
	s.Apply(e)
	if e.Context.HostDepartment != "from the console" || e.Context.PersonID != "9" || !e.Process.RemoteTool.Approved.V {
		t.Errorf("got %+v, %+v", e.Context, e.Process.RemoteTool)
	}
	cfg.Host.Department = "here"
	s.Reload(Options{Config: cfg})
	e = decode(t, `{"event.action":"process-started","process.executable":"/x/anydesk","user.name":"p"}`)
	s.Apply(e)
	if e.Context.HostDepartment != "here" || e.Context.PersonID != "" || e.Process.RemoteTool.Approved.V {
		t.Errorf("after the reload: got %+v, %+v", e.Context, e.Process.RemoteTool)
	}
}

func TestStateSurvivesReloadAndReloadMayRunBeside(t *testing.T) {
	s := stage(t)
	s.Apply(decode(t, `{"@timestamp":"2026-11-20T02:59:00Z","event.action":"process-started","process.executable":"/x/anydesk","process.entity_id":"p1"}`))
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 50 {
			s.Reload(Options{})
		}
	})
	for range 200 {
		e := decode(t, `{"@timestamp":"2026-11-20T03:00:00Z","event.action":"file-copied","file.path":"\\\\fs01\\juki$\\a"}`)
		s.Apply(e)
		if e.Context.RemoteSessionID != "p1" {
			t.Fatal("the open session was forgotten")
		}
	}
	wg.Wait()
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	s := stage(t)
	for i := range 3 * maxShares {
		s.Apply(decode(t, fmt.Sprintf(`{"host.id":"x","event.action":"process-started","process.executable":"/x/anydesk","process.entity_id":"p%d","volume.mount_name":"/m%d","file.path":"/f","sekisho.file.share":"\\\\s\\%d"}`, i, i, i)))
		s.Apply(decode(t, fmt.Sprintf(`{"host.id":"x","event.action":"volume-mounted","volume.mount_name":"/m%d"}`, i)))
	}
	if len(s.sessions.list) != maxSessions || len(s.volumes.list) != maxVolumes || len(s.now.Load().shareCache) > maxShares {
		t.Errorf("%d sessions, %d volumes, %d shares", len(s.sessions.list), len(s.volumes.list), len(s.now.Load().shareCache))
	}
}

func TestAnotherPCSharesTheSettingsOnly(t *testing.T) {
	s := stage(t)
	s.Apply(decode(t, `{"event.action":"process-started","process.executable":"/x/anydesk","process.entity_id":"p1"}`))
	s.Apply(decode(t, `{"event.action":"volume-mounted","volume.mount_name":"/media/a","volume.removable":true}`))
	e := decode(t, `{"event.action":"file-copied","file.path":"/media/a/y.pdf","sekisho.source.path":"/srv/juki/report.ods"}`)
	s.Another().Apply(e)
	if e.Context.RemoteSessionID != "" || e.File.VolumeKind != "" {
		t.Errorf("session %q, volume kind %q of the other PC", e.Context.RemoteSessionID, e.File.VolumeKind)
	}
	if e.Copy.SourceProtected == "" {
		t.Error("the protected places are not known")
	}
}

func TestASessionBeginsOnce(t *testing.T) {
	s := stage(t)
	for _, step := range []struct {
		event string
		want  bool
	}{
		{`{"event.action":"process-started","process.executable":"/bin/true","process.entity_id":"p0"}`, false},
		{`{"event.action":"process-started","process.executable":"/x/rustdesk","process.entity_id":"p1"}`, true}, // approved
		{`{"event.action":"process-started","process.executable":"/x/rustdesk","process.entity_id":"p2"}`, false},
		{`{"event.action":"process-started","process.executable":"/x/anydesk","process.entity_id":"p3"}`, true},
		{`{"event.action":"process-started","process.executable":"/x/anydesk","process.entity_id":"p4"}`, false},
		{`{"event.action":"file-read"}`, false},
	} {
		s.Apply(decode(t, step.event))
		if got := s.SessionBegan(); got != step.want {
			t.Errorf("%s: began %v, want %v", step.event, got, step.want)
		}
	}
}

func TestCheckNamesUnknownTools(t *testing.T) {
	cfg, err := config.ParseAgent("a.yaml", []byte("remote_access:\n  approved:\n    - tool: anydeks\n    - tool: putty\n    - tool: rustdesk\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := Check(cfg, catalog.Load()).Error()
	want := `a.yaml:3:13: remote_access.approved[0].tool: no remote-access tool "anydeks" in the catalogue (did you mean "anydesk"?) [CFG-13]
a.yaml:4:13: remote_access.approved[1].tool: no remote-access tool "putty" in the catalogue [CFG-13]`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Every national holiday of 2026 and 2027, from the Cabinet Office's list.
func TestHolidaysOfJapan(t *testing.T) {
	days := strings.Fields(`
		2026-01-01 2026-01-12 2026-02-11 2026-02-23 2026-03-20 2026-04-29 2026-05-03 2026-05-04 2026-05-05 2026-05-06
		2026-07-20 2026-08-11 2026-09-21 2026-09-22 2026-09-23 2026-10-12 2026-11-03 2026-11-23
		2027-01-01 2027-01-11 2027-02-11 2027-02-23 2027-03-21 2027-03-22 2027-04-29 2027-05-03 2027-05-04 2027-05-05
		2027-07-19 2027-08-11 2027-09-20 2027-09-23 2027-10-11 2027-11-03 2027-11-23`)
	c := newCalendar(&config.DefaultAgent().WorkHours)
	for d := time.Date(2026, 1, 4, 3, 0, 0, 0, time.UTC); d.Year() < 2028; d = d.AddDate(0, 0, 1) {
		md := d.Format("01-02")
		want := slices.Contains(days, d.Format(time.DateOnly)) || md >= "12-29" || md <= "01-03"
		if got := c.work(d) == workHoliday; got != want {
			t.Errorf("%s: holiday %v, want %v", d.Format(time.DateOnly), got, want)
		}
	}
}

func TestSourceIDIsStable(t *testing.T) {
	// Distinct counts go over days and restarts: the hash must never change.
	for path, want := range map[string]string{"/srv/a": "b068a6cef8334eeb", `C:\A`: "", "c:/a": ""} {
		got := sourceID(path)
		if want == "" {
			want = sourceID(`c:\a`)
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}

// A replay has to answer what the agent answered.
func TestSameEventsSameAnswers(t *testing.T) {
	lines := []string{
		`{"@timestamp":"2026-11-20T03:00:00Z","host.id":"a","event.action":"volume-mounted","volume.dos_name":"E:","volume.removable":true,"volume.serial_number":"BBB"}`,
		`{"@timestamp":"2026-11-20T03:00:01Z","host.id":"b","event.action":"process-started","process.executable":"/x/anydesk","process.entity_id":"p"}`,
		`{"@timestamp":"2026-11-20T03:00:02Z","host.id":"a","event.action":"file-copied","file.path":"E:\\a","sekisho.source.path":"\\\\fs01\\soumu1\\a","user.name":"yamada"}`,
		`{"@timestamp":"2026-11-20T03:00:03Z","host.id":"b","event.action":"file-read","file.path":"/srv/juki/a"}`,
	}
	var first string
	for range 5 {
		s := stage(t)
		var out []byte
		for _, l := range lines {
			e := decode(t, l)
			s.Apply(e)
			out = e.AppendJSON(out)
		}
		if first == "" {
			first = string(out)
		} else if string(out) != first {
			t.Fatalf("got\n%s\nbefore\n%s", out, first)
		}
	}
}

// fieldsOf is every field of an event as text.
func fieldsOf(e *event.Event) map[string]string {
	m := map[string]string{}
	e.Each(func(name string, v event.Value) { m[name] = v.Type().String() + ":" + v.String() })
	return m
}

func FuzzApply(f *testing.F) {
	for _, s := range []string{
		`{"@timestamp":"2026-11-20T03:00:00Z","event.action":"file-copied","file.path":"E:\\a.xlsx","sekisho.source.path":"\\\\fs01\\juki$\\a"}`,
		`{"event.action":"process-started","process.executable":"/x/anydesk","process.parent.executable":"bash","user.name":"yamada","sekisho.remote_tool.id":""}`,
		`{"event.action":"volume-mounted","volume.mount_name":"/","volume.removable":true,"volume.serial_number":"","file.path":"/x"}`,
		`{"event.action":"usb-attached","sekisho.device.kinds":["storage"],"sekisho.host.tags":[],"process.pid":1}`,
		`{"event.action":"network-connected","destination.domain":"a.anydesk.com","process.name":"x","process.args":["a"]}`,
	} {
		f.Add([]byte(s))
	}
	st := stage(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := event.Decode(data)
		if err != nil {
			return
		}
		before := fieldsOf(e)
		st.Apply(e)
		after := fieldsOf(e)
		for name, v := range before {
			if after[name] != v {
				t.Errorf("%s: %q became %q", name, v, after[name])
			}
		}
		st.Apply(e) // what is filled in stays, too
		if again := fieldsOf(e); !maps.Equal(after, again) && e.Action != event.ProcessEnded && e.Action != event.VolumeUnmounted {
			for name, v := range again {
				if after[name] != v {
					t.Errorf("second time: %s: %q became %q", name, after[name], v)
				}
			}
		}
	})
}

func BenchmarkApply(b *testing.B) {
	for _, bb := range []struct{ name, event string }{
		{"process-start", `{"@timestamp":"2026-11-20T03:00:00Z","event.action":"process-started","host.id":"h","user.name":"root","process.executable":"/usr/bin/true","process.args":["true"],"process.parent.executable":"/usr/bin/bash"}`},
		{"file-read", `{"@timestamp":"2026-11-20T03:00:00Z","event.action":"file-read","host.id":"h","user.name":"yamada","file.path":"/home/yamada/Documents/2026/report.ods","process.executable":"/usr/bin/soffice"}`},
		{"file-copied", `{"@timestamp":"2026-11-20T03:00:00Z","event.action":"file-copied","host.id":"h","user.name":"yamada","file.path":"/media/a/report.ods","file.size":5,"sekisho.source.path":"/srv/juki/report.ods","volume.serial_number":"BBB","sekisho.volume.kind":"removable"}`},
	} {
		b.Run(bb.name, func(b *testing.B) {
			s := stage(b)
			first := decode(b, bb.event)
			b.ReportAllocs()
			for b.Loop() {
				// A fresh event each time: shallow copies of what Apply writes to.
				e := *first
				if first.File != nil {
					f := *first.File
					e.File = &f
				}
				if first.Copy != nil {
					c := *first.Copy
					e.Copy = &c
				}
				if first.Process != nil {
					p := *first.Process
					e.Process = &p
				}
				s.Apply(&e)
			}
		})
	}
}
