//go:build windows

// Command pc does on a Windows what a person at it would do, for the test that
// drives it: it reads one command a line from standard input and answers with what
// it printed, then a line "== exit CODE".
//
//	attach LETTER DIR     a removable drive appears, with a folder of the Linux side as its content (Wine's mount manager)
//	detach LETTER         it goes
//	copy N FROM TO        copies FROM\0001.xlsx to FROM\N.xlsx to a folder, one after the other
//	make N DIR            writes those files
//	open PATH             lets everybody do everything with a file or folder
//	start PROGRAM ARG...  starts a program and goes on
//	sleep SECONDS         does nothing; a copy of this program by another name is a tool that runs
//	run COMMAND           anything else, by cmd
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/windows"
)

func main() {
	if len(os.Args) > 1 {
		if err := do(os.Args[1], os.Args[2:]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	fmt.Println("== exit 0") // ready
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		line := strings.TrimSpace(in.Text())
		name, rest, _ := strings.Cut(line, " ")
		var err error
		if name == "run" {
			err = shell(rest)
		} else if args, bad := windows.DecomposeCommandLine("pc " + rest); bad != nil {
			err = bad
		} else {
			err = do(name, args[1:])
		}
		code := 0
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			code = exit.ExitCode()
		} else if err != nil {
			fmt.Println(err)
			code = 1
		}
		fmt.Printf("\n== exit %d\n", code)
	}
}

func shell(line string) error {
	c := exec.Command("cmd")
	c.SysProcAttr = &syscall.SysProcAttr{CmdLine: "cmd /c " + line}
	c.Stdout, c.Stderr = os.Stdout, os.Stdout
	return c.Run()
}

func do(name string, args []string) error {
	want := map[string]int{"attach": 2, "detach": 1, "copy": 3, "make": 2, "open": 1, "start": 1, "sleep": 1}[name]
	if want == 0 || len(args) < want {
		return fmt.Errorf("%s: no such command, or too few arguments", name)
	}
	switch name {
	case "attach":
		return drive(args[0], 2, args[1])
	case "detach":
		return drive(args[0], 1, "")
	case "open":
		return open(args[0])
	case "start":
		c := exec.Command(args[0], args[1:]...)
		if err := c.Start(); err != nil {
			return err
		}
		go c.Wait() // for as long as we live
		return nil
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if name == "sleep" {
		time.Sleep(time.Duration(n) * time.Second)
		return nil
	}
	for i := range n {
		file := fmt.Sprintf("%04d.xlsx", i+1)
		content := []byte(strings.Repeat(file, 2000))
		to := args[1]
		if name == "copy" {
			to = args[2]
			if content, err = os.ReadFile(filepath.Join(args[1], file)); err != nil {
				return err
			}
		}
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, file), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func open(path string) error {
	sd, err := windows.SecurityDescriptorFromString("D:(A;OICI;FA;;;WD)")
	if err != nil {
		return err
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	return windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
}

// drive asks Wine's mount manager for a drive of a kind (2 removable, 1 none); its
// request is the struct of mountmgr.sys, followed by the folder.
func drive(letter string, kind uint32, dir string) error {
	name, err := windows.UTF16PtrFromString(`\\.\MountPointManager`)
	if err != nil {
		return err
	}
	h, err := windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, nil, windows.OPEN_EXISTING, 0, 0)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(h)
	const head, define = 32, 0x6dc080
	b := make([]byte, head, head+len(dir)+1)
	binary.LittleEndian.PutUint32(b[4:], kind)
	binary.LittleEndian.PutUint16(b[24:], uint16(strings.ToLower(letter)[0]))
	binary.LittleEndian.PutUint16(b[26:], head)
	b = append(append(b, dir...), 0)
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	var n uint32
	return windows.DeviceIoControl(h, define, &b[0], uint32(len(b)), nil, 0, &n, nil)
}
