package enrich

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode/utf8"

	"sekisho/internal/event"
)

var (
	fFileName       = field("file.name")
	fFileExtension  = field("file.extension")
	fFileKind       = field("sekisho.file.volume_kind")
	fFileShare      = field("sekisho.file.share")
	fVolumeKind     = field("sekisho.volume.kind")
	fSourceShare    = field("sekisho.source.share")
	fSourceKind     = field("sekisho.source.volume_kind")
	fSourceIDs      = field("sekisho.copy.source_ids")
	fProcessName    = field("process.name")
	fParentName     = field("process.parent.name")
	fProcessStarter = field("sekisho.process.started_by")
)

// derive fills in what follows from the event alone.
func derive(e *event.Event) {
	if v := e.Volume; v != nil {
		fill(e, fVolumeKind, &v.Kind, volumeKind(v))
	}
	if f := e.File; f != nil && f.Path != "" {
		fill(e, fFileName, &f.Name, base(f.Path))
		fill(e, fFileExtension, &f.Extension, extension(f.Name))
		if e.Volume != nil {
			fill(e, fFileKind, &f.VolumeKind, e.Volume.Kind)
			fill(e, fFileShare, &f.Share, e.Volume.Share)
		}
		if share := uncShare(f.Path); share != "" {
			fill(e, fFileShare, &f.Share, share)
			fill(e, fFileKind, &f.VolumeKind, event.VolumeNetwork)
		}
		if f.Share != "" {
			fill(e, fFileKind, &f.VolumeKind, event.VolumeNetwork)
		}
	}
	if p := e.Process; p != nil {
		fill(e, fProcessName, &p.Name, base(p.Executable))
		if q := p.Parent; q != nil {
			fill(e, fParentName, &q.Name, base(q.Executable))
			if e.Action == event.ProcessStarted && q.Name != "" {
				fill(e, fProcessStarter, &p.StartedBy, starter(q.Name))
			}
		}
	}
	if isCopy(e.Action) {
		deriveCopy(e)
	}
}

// isCopy reports whether an action moves contents somewhere.
func isCopy(a event.Action) bool {
	return a == event.FileCopied || a == event.FileUploaded || a == event.ArchiveCreated
}

// deriveCopy fills in the totals that counting rules add up: a copy that says
// nothing else is of one file, of that file's size.
func deriveCopy(e *event.Event) {
	if e.Copy == nil {
		e.Copy = &event.Copy{}
	}
	c := e.Copy
	fill(e, fSourceShare, &c.SourceShare, uncShare(c.SourcePath))
	if c.SourceShare != "" {
		fill(e, fSourceKind, &c.SourceVolumeKind, event.VolumeNetwork)
	}
	if !c.Files.OK {
		c.Files = event.Some[int64](1)
	}
	if !c.Bytes.OK && e.File != nil && e.File.Size.OK {
		c.Bytes = e.File.Size
	}
	if len(c.SourceIDs) == 0 && !e.Has(fSourceIDs) {
		path := c.SourcePath
		if path == "" && e.File != nil {
			path = e.File.Path
		}
		if path != "" {
			c.SourceIDs = []string{sourceID(path)}
		}
	}
}

// sourceID is the stable hash of a source path for distinct counts: the first 8
// bytes of its SHA-256 in hex, as the file sensor takes it, of the path as it
// compares on its system. Two of a million paths collide with a chance of about
// 1 in 40 million, which a count of hundreds does not notice.
func sourceID(path string) string {
	if windows(path) {
		path = fold(path)
	}
	h := sha256.Sum256([]byte(path))
	return hex.EncodeToString(h[:8])
}

// base is the last element of a path of either system. On Linux a backslash is
// a letter like any other.
func base(path string) string {
	i := strings.LastIndexByte(path, '/')
	if windows(path) {
		i = strings.LastIndexAny(path, `/\`)
	}
	return path[i+1:]
}

// extension is what follows the last dot, in lower case; none for names that
// begin with their only dot, and for what is too long to be one.
func extension(name string) string {
	i := strings.LastIndexByte(name, '.')
	if i <= 0 || i == len(name)-1 || len(name)-i > 33 || !utf8.ValidString(name[i:]) {
		return ""
	}
	return strings.ToLower(name[i+1:])
}

// uncShare is `\\server\share` of a path below it, else "".
func uncShare(path string) string {
	rest, ok := strings.CutPrefix(path, `\\?\UNC\`)
	if !ok {
		if rest, ok = strings.CutPrefix(path, `\\`); !ok || strings.HasPrefix(rest, `?\`) || strings.HasPrefix(rest, `.\`) {
			return ""
		}
	}
	server, below, ok := strings.Cut(rest, `\`)
	share, _, _ := strings.Cut(below, `\`)
	if !ok || server == "" || share == "" {
		return ""
	}
	return `\\` + server + `\` + share
}

// networkTypes are file systems that are another machine's.
var networkTypes = map[string]bool{"nfs": true, "nfs4": true, "cifs": true, "smb3": true, "smbfs": true, "fuse.sshfs": true, "sshfs": true,
	"9p": true, "afs": true, "ceph": true, "glusterfs": true, "fuse.glusterfs": true, "davfs": true, "fuse.davfs2": true, "fuse.rclone": true, "webdav": true}

// volumeKind is the kind of a volume as far as its other fields tell.
func volumeKind(v *event.Volume) string {
	fs := strings.ToLower(v.FileSystemType)
	switch {
	case v.Share != "" || networkTypes[fs]:
		return event.VolumeNetwork
	case fs == "iso9660" || fs == "udf" || fs == "cdfs":
		return event.VolumeOptical
	case v.Removable.OK && v.Removable.V || strings.EqualFold(v.BusType, "usb"):
		return event.VolumeRemovable
	case v.Removable.OK:
		return event.VolumeLocal
	}
	return ""
}

// starter is who started what this program starts, as far as one ancestor tells.
func starter(program string) string {
	if by := event.Starter(program); by != "" {
		return by
	}
	return event.ByOther
}
