/*
 * install.dll: what the agent's installer cannot do by tables. Windows runs its functions from within msiexec:
 *
 *   Prepare     immediate, as the person who installs: finds the enrolment token, tells the others what to work on
 *   WaitStopped deferred, as the system: waits until the service's process is gone, so that its file can be replaced
 *   EndTracing  deferred, as the system: ends what an agent that was killed has left in the kernel
 *   Setup       deferred, as the system: first settings, then enrolment; a failure ends and undoes the installation
 *   RemoveData  commit (removal) or rollback (a first installation that failed): deletes the data folder
 *
 * All work is the agent's own (configure, enroll, service end-tracing); this file runs it and shows what it says in the installer's log and
 * on the screen, which an executable as custom action cannot do. The token goes through a pipe: command lines are seen
 * by others and end up in logs.
 */
#include <windows.h>
#include <msi.h>
#include <msiquery.h>

#define MAX_TOKEN 16384 /* as the agent's own bound; a real token has some hundred characters */
#define MAX_SAID 8192   /* bytes of what the agent says that are shown */
#define LIMIT 180000    /* ms for one call of the agent; enrolling takes 2 minutes at most */
#define DATA 33000      /* characters of what Prepare hands to the others: two paths and a token */

#define POLICY L"SOFTWARE\\Policies\\Sekisho\\Agent"

static void say(MSIHANDLE h, INSTALLMESSAGE kind, const WCHAR *text)
{
	MSIHANDLE r = MsiCreateRecord(1);
	MsiRecordSetStringW(r, 0, L"[1]"); /* the text itself is never a template */
	MsiRecordSetStringW(r, 1, text);
	MsiProcessMessage(h, kind, r);
	MsiCloseHandle(r);
}

/* Every buffer comes zeroed; NULL where there is no memory. */
static void *room(SIZE_T bytes) { return HeapAlloc(GetProcessHeap(), HEAP_ZERO_MEMORY, bytes); }

static void clear(void *p, SIZE_T bytes)
{
	if (p) {
		SecureZeroMemory(p, bytes);
		HeapFree(GetProcessHeap(), 0, p);
	}
}

/* property reads a property of at most n-1 characters; longer ones count as an error. */
static BOOL property(MSIHANDLE h, const WCHAR *name, WCHAR *to, DWORD n)
{
	return MsiGetPropertyW(h, name, to, &n) == ERROR_SUCCESS;
}

/* token_beside reads enroll.token in the folder of the MSI, without white space around it. */
static void token_beside(MSIHANDLE h, WCHAR *to, DWORD n)
{
	WCHAR path[1024];
	char *text = room(MAX_TOKEN);
	DWORD got = 0;
	HANDLE f;

	if (!text || !property(h, L"OriginalDatabase", path, 1000))
		goto out;
	WCHAR *end = path;
	for (WCHAR *p = path; *p; p++)
		if (*p == L'\\' || *p == L'/')
			end = p + 1;
	lstrcpyW(end, L"enroll.token");
	f = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
	if (f == INVALID_HANDLE_VALUE)
		goto out;
	if (ReadFile(f, text, MAX_TOKEN - 1, &got, NULL)) {
		char *from = text;
		if (got >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) /* Notepad's mark */
			from += 3;
		while (*from == ' ' || *from == '\t' || *from == '\r' || *from == '\n')
			from++;
		int len = lstrlenA(from);
		while (len > 0 && (from[len - 1] == ' ' || from[len - 1] == '\t' || from[len - 1] == '\r' || from[len - 1] == '\n'))
			from[--len] = 0;
		if (MultiByteToWideChar(CP_UTF8, 0, from, -1, to, n) > 1)
			say(h, INSTALLMESSAGE_INFO, L"Sekisho: enroll.token beside the MSI is used");
	}
	CloseHandle(f);
out:
	clear(text, MAX_TOKEN);
}

/* Prepare sets the properties by which the other functions get their work, and DATA_IS_NEW, KEEP_DATA. */
__declspec(dllexport) UINT WINAPI Prepare(MSIHANDLE h)
{
	WCHAR program[1100], data[1024];
	DWORD n = 1024, keep = 0, size = sizeof keep;
	WCHAR *token = room(MAX_TOKEN * sizeof *token), *all = room(DATA * sizeof *all);
	UINT status = ERROR_INSTALL_FAILURE;

	if (!token || !all || MsiGetTargetPathW(h, L"ProgramFolder", program, &n) != ERROR_SUCCESS)
		goto out;
	n = 1024;
	if (MsiGetTargetPathW(h, L"DataFolder", data, &n) != ERROR_SUCCESS)
		goto out;
	if (!property(h, L"ENROLL_TOKEN", token, MAX_TOKEN)) {
		say(h, INSTALLMESSAGE_ERROR, L"ENROLL_TOKEN is too long to be an enrolment token.");
		goto out;
	}
	if (!*token)
		token_beside(h, token, MAX_TOKEN);
	/* The language of the person; the agent then runs as the system. | cannot be in a path. */
	const WCHAR *lang = PRIMARYLANGID(GetUserDefaultUILanguage()) == LANG_JAPANESE ? L"ja" : L"en";
	lstrcatW(all, lang);
	lstrcatW(all, L"|");
	lstrcatW(all, program);
	lstrcatW(all, L"|");
	lstrcatW(all, data);
	lstrcatW(all, L"|");
	lstrcatW(all, token);
	MsiSetPropertyW(h, L"Setup", all);
	MsiSetPropertyW(h, L"RemoveData", data);
	lstrcatW(program, L"sekisho-agent.exe"); /* a path of Windows is far shorter than the buffer */
	MsiSetPropertyW(h, L"WaitStopped", program);
	MsiSetPropertyW(h, L"EndTracing", program);
	MsiSetPropertyW(h, L"UndoSetup", data);
	if (GetFileAttributesW(data) == INVALID_FILE_ATTRIBUTES)
		MsiSetPropertyW(h, L"DATA_IS_NEW", L"1");
	/* Group policy cannot set properties. */
	if (!RegGetValueW(HKEY_LOCAL_MACHINE, POLICY, L"KeepData", RRF_RT_REG_DWORD | RRF_SUBKEY_WOW6464KEY, NULL, &keep, &size) && keep)
		MsiSetPropertyW(h, L"KEEP_DATA", L"1");
	status = ERROR_SUCCESS;
out:
	clear(token, MAX_TOKEN * sizeof *token);
	clear(all, DATA * sizeof *all);
	return status;
}

/*
 * run starts a program, gives it the text on its standard input and collects what it says, at most MAX_SAID-1 bytes.
 * It answers its exit code, or a negative number where it could not be run or did not end in time.
 */
static int run(WCHAR *command, const char *input, char *said)
{
	SECURITY_ATTRIBUTES inherit = {sizeof inherit, NULL, TRUE};
	HANDLE in_r = NULL, in_w = NULL, out_r = NULL, out_w = NULL;
	STARTUPINFOW si = {0};
	PROCESS_INFORMATION pi = {0};
	DWORD n, len = 0, code = 0;
	int status = -1;

	/* The pipe holds all of the input, so that writing never waits. */
	if (!CreatePipe(&in_r, &in_w, &inherit, 2 * MAX_TOKEN) || !CreatePipe(&out_r, &out_w, &inherit, 0))
		goto out;
	SetHandleInformation(in_w, HANDLE_FLAG_INHERIT, 0);
	SetHandleInformation(out_r, HANDLE_FLAG_INHERIT, 0);
	si.cb = sizeof si;
	si.dwFlags = STARTF_USESTDHANDLES;
	si.hStdInput = in_r;
	si.hStdOutput = si.hStdError = out_w;
	if (!CreateProcessW(NULL, command, NULL, NULL, TRUE, CREATE_NO_WINDOW, NULL, NULL, &si, &pi))
		goto out;
	CloseHandle(in_r);
	CloseHandle(out_w);
	in_r = out_w = NULL;
	WriteFile(in_w, input, lstrlenA(input), &n, NULL);
	CloseHandle(in_w);
	in_w = NULL;

	ULONGLONG until = GetTickCount64() + LIMIT;
	for (;;) {
		DWORD waiting = 0, ended = WaitForSingleObject(pi.hProcess, 50) == WAIT_OBJECT_0;
		while (PeekNamedPipe(out_r, NULL, 0, NULL, &waiting, NULL) && waiting) {
			char some[512];
			if (!ReadFile(out_r, some, sizeof some, &n, NULL) || !n)
				break;
			for (DWORD i = 0; i < n && len < MAX_SAID - 1; i++)
				said[len++] = some[i];
		}
		if (ended)
			break;
		if (GetTickCount64() > until) {
			TerminateProcess(pi.hProcess, 3);
			status = -2;
			goto out;
		}
	}
	if (GetExitCodeProcess(pi.hProcess, &code))
		status = (int)code;
out:
	for (HANDLE *p, *all[] = {&in_r, &in_w, &out_r, &out_w, &pi.hProcess, &pi.hThread, NULL}, **i = all; (p = *i); i++)
		if (*p)
			CloseHandle(*p);
	return status;
}

/* step runs one command of the agent and shows what it says. The agent's exit code 1 is a warning. */
static UINT step(MSIHANDLE h, BOOL ja, WCHAR *command, const char *input)
{
	char *said = room(MAX_SAID);
	WCHAR *text = room((MAX_SAID + 512) * sizeof *text);
	UINT status = ERROR_INSTALL_FAILURE;

	if (!said || !text)
		goto out;
	int code = run(command, input, said);
	if (code < 0)
		lstrcpyW(text, code == -2 ? L"sekisho-agent.exe did not end in time." : L"sekisho-agent.exe could not be run.");
	else
		MultiByteToWideChar(CP_UTF8, 0, said, -1, text, MAX_SAID);
	if (code == 0 || code == 1) {
		if (*text)
			say(h, code ? INSTALLMESSAGE_WARNING | MB_OK | MB_ICONWARNING : INSTALLMESSAGE_INFO, text);
		status = ERROR_SUCCESS;
	} else {
		lstrcatW(text, ja ? L"\r\nインストールを取り消し、元の状態に戻します。" : L"\r\nThe installation is undone.");
		say(h, INSTALLMESSAGE_ERROR | MB_OK | MB_ICONERROR, text);
	}
out:
	clear(said, MAX_SAID);
	clear(text, (MAX_SAID + 512) * sizeof *text);
	return status;
}

/* A service says that it has stopped shortly before its process ends; a program that runs cannot be opened for writing. */
__declspec(dllexport) UINT WINAPI WaitStopped(MSIHANDLE h)
{
	WCHAR path[1100];

	if (!property(h, L"CustomActionData", path, 1100))
		return ERROR_SUCCESS;
	for (int i = 0; i < 150; i++) { /* 15 s */
		HANDLE f = CreateFileW(path, GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING, 0, NULL);
		if (f != INVALID_HANDLE_VALUE) {
			CloseHandle(f);
			break;
		}
		if (GetLastError() == ERROR_FILE_NOT_FOUND || GetLastError() == ERROR_PATH_NOT_FOUND)
			break;
		Sleep(100);
	}
	return ERROR_SUCCESS;
}

/* An agent that was killed leaves its event tracing sessions, which live in the kernel until the PC is started again. */
__declspec(dllexport) UINT WINAPI EndTracing(MSIHANDLE h)
{
	WCHAR path[1100], command[1200];
	char *said = room(MAX_SAID);

	if (said && property(h, L"CustomActionData", path, 1100)) {
		lstrcpyW(command, L"\"");
		lstrcatW(command, path);
		lstrcatW(command, L"\" service end-tracing");
		say(h, INSTALLMESSAGE_INFO, run(command, "", said) ? L"Sekisho: event tracing sessions could not be ended" : L"Sekisho: no event tracing session is left");
	}
	clear(said, MAX_SAID);
	return ERROR_SUCCESS;
}

/* Setup writes first settings where there are none and enrols the PC where there is a token. */
__declspec(dllexport) UINT WINAPI Setup(MSIHANDLE h)
{
	WCHAR *all = room(DATA * sizeof *all), command[4096], *part[4] = {0};
	char *token = room(MAX_TOKEN);
	UINT status = ERROR_INSTALL_FAILURE;
	int n = 0;

	if (!all || !token || !property(h, L"CustomActionData", all, DATA))
		goto out;
	part[n++] = all;
	for (WCHAR *p = all; *p && n < 4; p++)
		if (*p == L'|') {
			*p = 0;
			part[n++] = p + 1;
		}
	if (n < 4 || lstrlenW(part[1]) > 1000 || lstrlenW(part[2]) > 1000)
		goto out;
	SetEnvironmentVariableW(L"SEKISHO_LANG", part[0]);
	BOOL ja = !lstrcmpW(part[0], L"ja");
	for (int enroll = 0; enroll < (*part[3] ? 2 : 1); enroll++) {
		lstrcpyW(command, L"\"");
		lstrcatW(command, part[1]);
		lstrcatW(command, enroll ? L"sekisho-agent.exe\" enroll --unattended --token-file - --config \"" : L"sekisho-agent.exe\" configure --config \"");
		lstrcatW(command, part[2]);
		lstrcatW(command, L"agent.yaml\"");
		if (enroll && !WideCharToMultiByte(CP_UTF8, 0, part[3], -1, token, MAX_TOKEN, NULL, NULL))
			goto out;
		if ((status = step(h, ja, command, enroll ? token : "")) != ERROR_SUCCESS)
			break;
	}
out:
	clear(all, DATA * sizeof *all);
	clear(token, MAX_TOKEN);
	return status;
}

/* tree deletes the file or folder at path, of n characters; links are deleted, not followed. It counts what stays. */
static int tree(WCHAR *path, int n, int size)
{
	WIN32_FIND_DATAW d;
	DWORD a = GetFileAttributesW(path);
	int stays = 0;

	if (a == INVALID_FILE_ATTRIBUTES)
		return 0;
	if (a & FILE_ATTRIBUTE_READONLY)
		SetFileAttributesW(path, a & ~FILE_ATTRIBUTE_READONLY);
	if (!(a & FILE_ATTRIBUTE_DIRECTORY))
		return !DeleteFileW(path);
	if (!(a & FILE_ATTRIBUTE_REPARSE_POINT) && n + 3 < size) {
		lstrcpyW(path + n, L"\\*");
		HANDLE f = FindFirstFileW(path, &d);
		if (f != INVALID_HANDLE_VALUE) {
			do {
				int len = lstrlenW(d.cFileName);
				if (!lstrcmpW(d.cFileName, L".") || !lstrcmpW(d.cFileName, L".."))
					continue;
				if (n + 1 + len >= size) {
					stays++;
					continue;
				}
				lstrcpyW(path + n + 1, d.cFileName);
				stays += tree(path, n + 1 + len, size);
				path[n] = L'\\';
			} while (FindNextFileW(f, &d));
			FindClose(f);
		}
		path[n] = 0;
	}
	return stays + !RemoveDirectoryW(path);
}

__declspec(dllexport) UINT WINAPI RemoveData(MSIHANDLE h)
{
	static const WCHAR ours[] = L"\\Sekisho";
	int size = 32768, n;
	WCHAR *path = room(size * sizeof *path);

	if (!path)
		return ERROR_INSTALL_FAILURE;
	lstrcpyW(path, L"\\\\?\\"); /* long paths */
	if (property(h, L"CustomActionData", path + 4, 1024)) {
		n = lstrlenW(path);
		if (n > 4 && path[n - 1] == L'\\')
			path[--n] = 0;
		/* Whatever went wrong before: no other folder than ours. */
		if (n > (int)(4 + 2 + sizeof ours / sizeof *ours) && !lstrcmpiW(path + n - (sizeof ours / sizeof *ours - 1), ours)) {
			if (tree(path, n, size))
				say(h, INSTALLMESSAGE_INFO, L"Sekisho: not all of the data folder could be deleted");
			else
				say(h, INSTALLMESSAGE_INFO, L"Sekisho: the data folder was deleted");
		}
	}
	clear(path, size * sizeof *path);
	return ERROR_SUCCESS;
}
