package procwatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"sekisho/internal/etw"
	"sekisho/internal/event"
)

// Bounds of a version resource. Windows' own programs have some 1 KB.
const (
	maxVersionInfo  = 64 << 10 // its length is a 16-bit number
	maxVersionText  = 1024     // bytes of a value that are told
	maxVersionParts = 256      // nodes looked at
)

var errVersionInfo = errors.New("version resource makes no sense")

// versionNode is one node of the tree that a version resource is (MSDN:
// VS_VERSIONINFO, StringFileInfo, StringTable, String, VarFileInfo, Var): wLength
// u16, wValueLength u16, wType u16, szKey UTF-16z, Value, children; Value and each
// child begin at a multiple of 4 bytes.
type versionNode struct {
	key      string
	value    []byte
	children []byte
}

// parseVersionNode reads the node that b begins with and returns what follows it.
func parseVersionNode(b []byte) (n versionNode, rest []byte, err error) {
	if len(b) < 6 {
		return n, nil, errVersionInfo
	}
	le := binary.LittleEndian
	size, valueSize, text := int(le.Uint16(b)), int(le.Uint16(b[2:])), le.Uint16(b[4:]) == 1
	if size < 6 || size > len(b) {
		return n, nil, errVersionInfo
	}
	node := b[:size]
	end := 6
	for ; ; end += 2 {
		if end+2 > size {
			return n, nil, errVersionInfo
		}
		if node[end] == 0 && node[end+1] == 0 {
			break
		}
	}
	n.key = etw.DecodeUTF16(node[6:end])
	at := min(align4(end+2), size)
	if text {
		valueSize *= 2 // in letters; some compilers give bytes, and then it is cut at the node's end
	}
	n.value = node[at:min(at+valueSize, size)]
	n.children = node[min(align4(at+len(n.value)), size):]
	return n, b[min(align4(size), len(b)):], nil
}

func align4(n int) int { return (n + 3) &^ 3 }

// parseVersionInfo reads a version resource as GetFileVersionInfo gives it, in the
// first language that it says it has. It is nil if it says nothing that is told.
func parseVersionInfo(b []byte) (*event.PE, error) {
	if len(b) > maxVersionInfo {
		b = b[:maxVersionInfo]
	}
	root, _, err := parseVersionNode(b)
	if err != nil {
		return nil, err
	}
	if root.key != "VS_VERSION_INFO" {
		return nil, fmt.Errorf("%w: it is called %q", errVersionInfo, root.key)
	}
	parts := 0
	// each calls f for the nodes in b until it says stop or something makes no sense:
	// what stands before that counts.
	each := func(b []byte, f func(versionNode) bool) {
		for len(b) > 0 && parts < maxVersionParts {
			n, rest, err := parseVersionNode(b)
			if err != nil || !f(n) {
				return
			}
			parts++
			b = rest
		}
	}
	var language string // of the table to read, "" for the first
	var tables []versionNode
	each(root.children, func(n versionNode) bool {
		switch n.key {
		case "VarFileInfo":
			each(n.children, func(v versionNode) bool {
				if v.key == "Translation" && len(v.value) >= 4 && language == "" {
					language = fmt.Sprintf("%04x%04x", binary.LittleEndian.Uint16(v.value), binary.LittleEndian.Uint16(v.value[2:]))
				}
				return true
			})
		case "StringFileInfo":
			each(n.children, func(t versionNode) bool {
				tables = append(tables, t)
				return true
			})
		}
		return true
	})
	if len(tables) == 0 {
		return nil, nil
	}
	table := tables[0]
	for _, t := range tables {
		if strings.EqualFold(t.key, language) {
			table = t
			break
		}
	}
	var pe event.PE
	each(table.children, func(s versionNode) bool {
		var to *string
		switch s.key {
		case "OriginalFilename":
			to = &pe.OriginalFileName
		case "CompanyName":
			to = &pe.Company
		case "ProductName":
			to = &pe.Product
		case "FileDescription":
			to = &pe.Description
		case "FileVersion":
			to = &pe.FileVersion
		default:
			return true
		}
		if *to == "" {
			r := etw.NewReader(s.value, 8)
			*to = strings.TrimSpace(cut(r.UTF16(), maxVersionText))
		}
		return true
	})
	if pe == (event.PE{}) {
		return nil, nil
	}
	return &pe, nil
}

// cut shortens s to at most n bytes, between letters.
func cut(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}
