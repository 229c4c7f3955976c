-- What is changed in the database that wixl makes of agent.wxs; one statement a line, @VERSION@ filled in. See build.

-- Texts of Windows itself, in both languages (those of install.c and of the agent follow the user's).
UPDATE `LaunchCondition` SET `Description` = 'これより新しい Sekisho Agent が入っているので、何も変更しませんでした。古い版に戻すには、先に KEEP_DATA=1 を付けて削除してください。 / A newer Sekisho Agent is installed; nothing was changed. To go back, first remove it with KEEP_DATA=1.' WHERE `Condition` = 'NOT WIX_DOWNGRADE_DETECTED'
INSERT INTO `LaunchCondition` (`Condition`, `Description`) VALUES ('Privileged', 'Sekisho Agent のインストールには管理者の権限が必要です。 / Installing Sekisho Agent needs the rights of an administrator.')
INSERT INTO `LaunchCondition` (`Condition`, `Description`) VALUES ('Installed OR VersionNT >= 603', 'Windows 10 か Windows Server 2016 以降が必要です。 / Windows 10, Windows Server 2016 or newer is needed.')
INSERT INTO `LaunchCondition` (`Condition`, `Description`) VALUES ('NOT ENROLL_TOKEN OR ENROLL_TOKEN << "sks1_"', 'ENROLL_TOKEN が登録トークン（sks1_ で始まる文字列）ではありません。 / ENROLL_TOKEN is not an enrolment token (it begins with sks1_).')

-- What may be given from outside, and what must not be in logs: the token, also on its way to Setup.
UPDATE `Property` SET `Value` = 'WIX_DOWNGRADE_DETECTED;WIX_UPGRADE_DETECTED;ENROLL_TOKEN;KEEP_DATA' WHERE `Property` = 'SecureCustomProperties'
INSERT INTO `Property` (`Property`, `Value`) VALUES ('MsiHiddenProperties', 'ENROLL_TOKEN;Setup')

-- A package of the same version replaces the one that is there, so that two never stand side by side.
DELETE FROM `Upgrade` WHERE `ActionProperty` = 'WIX_UPGRADE_DETECTED'
INSERT INTO `Upgrade` (`UpgradeCode`, `VersionMax`, `Attributes`, `ActionProperty`) VALUES ('{6F0B9C1E-5B0D-4B7C-9A53-0E6C1C2D7A41}', '@VERSION@', 513, 'WIX_UPGRADE_DETECTED')

-- Kinds of actions: 1 function of a DLL in the package, + 64 a failure does not matter, + 256 at undoing, + 512 after success, + 1024 deferred, + 2048 as the system, + 8192 its data not in logs.
UPDATE `CustomAction` SET `Type` = 1 WHERE `Action` = 'Prepare'
UPDATE `CustomAction` SET `Type` = 11265 WHERE `Action` = 'Setup'
UPDATE `CustomAction` SET `Type` = 3393 WHERE `Action` = 'UndoSetup'
UPDATE `CustomAction` SET `Type` = 3649 WHERE `Action` = 'RemoveData'
INSERT INTO `CustomAction` (`Action`, `Type`, `Source`, `Target`) VALUES ('WaitStopped', 3137, 'InstallDll', 'WaitStopped')
INSERT INTO `CustomAction` (`Action`, `Type`, `Source`, `Target`) VALUES ('EndTracing', 3137, 'InstallDll', 'EndTracing')

-- Places of actions. The older version goes within the transaction, so that a failure brings it back. Setup comes after the service is there (5800) and before it is started (5900).
UPDATE `InstallExecuteSequence` SET `Sequence` = 1010 WHERE `Action` = 'Prepare'
UPDATE `InstallExecuteSequence` SET `Sequence` = 1501 WHERE `Action` = 'RemoveExistingProducts'
UPDATE `InstallExecuteSequence` SET `Sequence` = 5855 WHERE `Action` = 'UndoSetup'
UPDATE `InstallExecuteSequence` SET `Sequence` = 5860 WHERE `Action` = 'Setup'
UPDATE `InstallExecuteSequence` SET `Sequence` = 6500 WHERE `Action` = 'RemoveData'
INSERT INTO `InstallExecuteSequence` (`Action`, `Condition`, `Sequence`) VALUES ('WaitStopped', 'Installed', 2010)
INSERT INTO `InstallExecuteSequence` (`Action`, `Condition`, `Sequence`) VALUES ('EndTracing', 'REMOVE = "ALL" AND NOT UPGRADINGPRODUCTCODE', 2020)
INSERT INTO `InstallExecuteSequence` (`Action`, `Condition`, `Sequence`) VALUES ('MsiConfigureServices', 'VersionMsi >= "5.00"', 5850)

-- Started again after 5, 30 and 60 s (type 1), counted for a day; event 1: at installing; configuration 4: also when it ended by itself with an error; 6: the privileges that it keeps; 7: ms that it has when the PC shuts down. As in cmd/agent/service_windows.go, which repairs it at every start.
CREATE TABLE `MsiServiceConfigFailureActions` (`MsiServiceConfigFailureActions` CHAR(72) NOT NULL, `Name` CHAR(255) NOT NULL, `Event` SHORT NOT NULL, `ResetPeriod` LONG, `RebootMessage` CHAR(255), `Command` CHAR(255), `Actions` CHAR(255), `DelayActions` CHAR(255), `Component_` CHAR(72) NOT NULL PRIMARY KEY `MsiServiceConfigFailureActions`)
INSERT INTO `MsiServiceConfigFailureActions` (`MsiServiceConfigFailureActions`, `Name`, `Event`, `ResetPeriod`, `Actions`, `DelayActions`, `Component_`) VALUES ('AgentRecovery', 'sekisho-agent', 1, 86400, '1[~]1[~]1', '5000[~]30000[~]60000', 'Agent')
CREATE TABLE `MsiServiceConfig` (`MsiServiceConfig` CHAR(72) NOT NULL, `Name` CHAR(255) NOT NULL, `Event` SHORT NOT NULL, `ConfigType` LONG NOT NULL, `Argument` CHAR(255), `Component_` CHAR(72) NOT NULL PRIMARY KEY `MsiServiceConfig`)
INSERT INTO `MsiServiceConfig` (`MsiServiceConfig`, `Name`, `Event`, `ConfigType`, `Argument`, `Component_`) VALUES ('AgentNonCrash', 'sekisho-agent', 1, 4, '1', 'Agent')
INSERT INTO `MsiServiceConfig` (`MsiServiceConfig`, `Name`, `Event`, `ConfigType`, `Argument`, `Component_`) VALUES ('AgentPrivileges', 'sekisho-agent', 1, 6, 'SeChangeNotifyPrivilege[~]SeDebugPrivilege[~]SeTcbPrivilege[~]SeSystemProfilePrivilege', 'Agent')
INSERT INTO `MsiServiceConfig` (`MsiServiceConfig`, `Name`, `Event`, `ConfigType`, `Argument`, `Component_`) VALUES ('AgentShutdown', 'sekisho-agent', 1, 7, '30000', 'Agent')

-- The data folder is for the system and administrators only; nothing is inherited from ProgramData, where everybody may write. Users may look at the service, no more. As in internal/winacl.
CREATE TABLE `MsiLockPermissionsEx` (`MsiLockPermissionsEx` CHAR(72) NOT NULL, `LockObject` CHAR(72) NOT NULL, `Table` CHAR(32) NOT NULL, `SDDLText` CHAR(0) NOT NULL, `Condition` CHAR(255) PRIMARY KEY `MsiLockPermissionsEx`)
INSERT INTO `MsiLockPermissionsEx` (`MsiLockPermissionsEx`, `LockObject`, `Table`, `SDDLText`) VALUES ('DataAccess', 'DataFolder', 'CreateFolder', 'D:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)')
INSERT INTO `MsiLockPermissionsEx` (`MsiLockPermissionsEx`, `LockObject`, `Table`, `SDDLText`) VALUES ('ServiceAccess', 'AgentService', 'ServiceInstall', 'D:(A;;CCDCLCSWRPWPDTLOCRSDRCWDWO;;;SY)(A;;CCDCLCSWRPWPDTLOCRSDRCWDWO;;;BA)(A;;CCLCSWLORC;;;IU)(A;;CCLCSWLORC;;;SU)')
